//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"

	"github.com/hinshun/ipcs/mediatype"
)

// Prepare implements snapshots.Snapshotter. For an ipcs layer it commits a snapshot at
// once and returns errdefs.ErrAlreadyExists, which tells containerd to look for it by
// the label containerd.io/snapshot.ref.
func (s *Snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	info, err := applyOpts(opts)
	if err != nil {
		return nil, err
	}
	if isKept(info.Labels) && !s.unverified {
		s.log.Info("a layer of an image with kept diffIDs is unpacked, which takes the differ ipcs-diff; allow_unverified_diff_ids would let it be mounted unproven",
			"root", info.Labels[mediatype.AnnotationRoot], "diffID", info.Labels[snapshots.LabelSnapshotDiffID])
		return s.create(ctx, snapshots.KindActive, key, parent, info.Labels)
	}
	req, err := parseRequest(key, info.Labels)
	if err != nil {
		return nil, err
	}
	if req != nil {
		return nil, s.prepareLayer(ctx, req, parent, info.Labels)
	}
	return s.create(ctx, snapshots.KindActive, key, parent, info.Labels)
}

// View implements snapshots.Snapshotter.
func (s *Snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	info, err := applyOpts(opts)
	if err != nil {
		return nil, err
	}
	return s.create(ctx, snapshots.KindView, key, parent, info.Labels)
}

// applyOpts returns what the options say, without labels that are ours.
func applyOpts(opts []snapshots.Opt) (info snapshots.Info, err error) {
	for _, opt := range opts {
		if err := opt(&info); err != nil {
			return info, err
		}
	}
	info.Labels = foreignLabels(info.Labels)
	return info, nil
}

// create makes an active snapshot or a view. What it lies on is mounted first, so that
// nothing is left behind when that fails.
func (s *Snapshotter) create(ctx context.Context, kind snapshots.Kind, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	links, err := s.parents(ctx, parent)
	if err != nil {
		return nil, err
	}
	u := use{plain: kind == snapshots.KindActive && isExtraction(key, labels)}
	if u.ids, err = s.mappingOf(labels, links); err != nil {
		return nil, err
	}
	l, err := s.lower(ctx, key, links, u)
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	var snapshot storage.Snapshot
	err = s.withDir(ctx, kind, func(ctx context.Context, dir string) (id string, err error) {
		snapshot, err = storage.CreateSnapshot(ctx, kind, key, parent, snapshots.WithLabels(labels))
		if err != nil {
			return "", fmt.Errorf("create snapshot: %w", err)
		}
		return snapshot.ID, s.chown(dir, labels, links)
	})
	if err != nil {
		if !errdefs.IsAlreadyExists(err) { // the key is then another's
			s.merged.release(key)
			s.mapped.release(key)
		}
		return nil, err
	}
	if isRun(kind, key, labels) {
		s.used(ctx, key, snapshot.ID, links, stageOf(kind, stageMade))
	}
	return s.mounts(kind, snapshot.ID, l), nil
}

// parents returns the chain of a committed snapshot, top first.
func (s *Snapshotter) parents(ctx context.Context, parent string) (links []link, err error) {
	if parent == "" {
		return nil, nil
	}
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		links, err = lineage(ctx, parent)
		return err
	})
	return links, err
}

// withDir makes the directory of a snapshot that fn creates in a transaction, and gives
// it the name fn returns. If anything fails, nothing is left of it.
func (s *Snapshotter) withDir(ctx context.Context, kind snapshots.Kind, fn func(ctx context.Context, dir string) (id string, err error)) (err error) {
	var made string
	defer func() {
		if err != nil && made != "" {
			err = errors.Join(err, os.RemoveAll(made))
		}
	}()
	return s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		parent := filepath.Join(s.root, snapshotsDir)
		if made, err = os.MkdirTemp(parent, tempPrefix); err != nil {
			return fmt.Errorf("make the directory of a snapshot: %w", err)
		}
		if err := os.Mkdir(filepath.Join(made, "fs"), 0o755); err != nil {
			return err
		}
		if kind == snapshots.KindActive {
			if err := os.Mkdir(filepath.Join(made, "work"), 0o711); err != nil {
				return err
			}
		}
		id, err := fn(ctx, made)
		if err != nil {
			return err
		}
		// A process that was killed here has left a directory, and its transaction, and so the
		// number, was undone: nobody was told of that snapshot.
		path := filepath.Join(parent, id)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Rename(made, path); err != nil {
			return err
		}
		made = path
		return nil
	})
}

// chown gives the directory of a snapshot to whom the labels map root, or else to the
// owner of the parent's.
func (s *Snapshotter) chown(dir string, labels map[string]string, links []link) error {
	uid, gid, ok, err := mappedRoot(labels)
	if err != nil {
		return err
	}
	if !ok {
		if len(links) == 0 {
			return nil
		}
		owner, err := s.owner(links[0])
		if err != nil {
			return err
		}
		uid, gid = owner[0], owner[1]
	}
	return os.Lchown(filepath.Join(dir, "fs"), uid, gid)
}

// prepareLayer commits a snapshot for an ipcs layer. It always returns an error:
// errdefs.ErrAlreadyExists says that the snapshot is there.
func (s *Snapshotter) prepareLayer(ctx context.Context, req *request, parent string, labels map[string]string) error {
	links, err := s.parents(ctx, parent)
	if err != nil {
		return err
	}
	if err := req.verify(links); err != nil {
		return err
	}
	if s.support.err != nil {
		return fmt.Errorf("layer %s (layer root %s): %w: %w", req.digest, req.root, s.support.err, errdefs.ErrFailedPrecondition)
	}
	done := fmt.Errorf("snapshot %s of layer %s: %w", req.target, req.root, errdefs.ErrAlreadyExists)
	name, err := s.exists(ctx, req, parent)
	if err != nil {
		return err
	}
	if name != "" {
		s.blobs.again(name)
		return done
	}
	s.hint(req.digest, req.peers)
	req.pulled = s.provenRef(ctx, req, len(links))
	s.opener.prefetch(ctx, req.image, s.files.known, func(ctx context.Context) {
		s.locate(ctx, req, len(links))
	})
	l, err := s.opener.open(ctx, req.root)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	if err := s.commitLayer(ctx, req, parent, labels, links, l.root.Data); err != nil {
		return err
	}
	if err := s.learnFiles(req.root, l.table); err != nil {
		return err
	}
	s.shared.add(req.root)
	return done
}

// exists returns the snapshot of this layer on this parent if it is there, as it is when
// another namespace of containerd has the image.
func (s *Snapshotter) exists(ctx context.Context, req *request, parent string) (name string, err error) {
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		name, err = findLayer(ctx, req, parent)
		return err
	})
	return name, err
}

func findLayer(ctx context.Context, req *request, parent string) (name string, err error) {
	err = storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted && info.Parent == parent &&
			info.Labels[labelRoot] == req.root.String() && info.Labels[snapshots.LabelSnapshotRef] == req.target.String() {
			name = info.Name
		}
		return nil
	})
	if errdefs.IsNotFound(err) { // the very first snapshot
		err = nil
	}
	return name, err
}

// commitLayer records the snapshot of an ipcs layer, unless another Prepare was quicker.
func (s *Snapshotter) commitLayer(ctx context.Context, req *request, parent string, labels map[string]string, links []link, block []byte) error {
	own := map[string]string{labelRoot: req.root.String(), labelChain: req.target.String(), labelBlob: req.digest.String()}
	for name, value := range labels {
		own[name] = value
	}
	if req.pulled != "" {
		own[labelPulled] = req.pulled
	}
	// It counts before others can see it, since they may want its chain at once.
	links = append([]link{{root: req.root}}, links...)
	s.retain(links)
	err := s.withDir(ctx, snapshots.KindView, func(ctx context.Context, dir string) (string, error) {
		there, err := findLayer(ctx, req, parent)
		if err != nil {
			return "", err
		}
		if there != "" {
			return "", errThere
		}
		if err := os.WriteFile(filepath.Join(dir, rootName), block, 0o600); err != nil {
			return "", fmt.Errorf("write the layer root: %w", err)
		}
		snapshot, err := storage.CreateSnapshot(ctx, snapshots.KindActive, req.key, parent)
		if err != nil {
			return "", fmt.Errorf("create snapshot: %w", err)
		}
		// Keys come back when containerd's own metadata were lost: the id does not.
		name := req.key + "-ipcs-" + snapshot.ID
		if _, err := storage.CommitActive(ctx, req.key, name, snapshots.Usage{}, snapshots.WithLabels(own)); err != nil {
			return "", fmt.Errorf("commit snapshot: %w", err)
		}
		// containerd ignores what a tar says of its root: the owner is that of the parent.
		return snapshot.ID, s.chown(dir, nil, links[1:])
	})
	if err == nil {
		return nil
	}
	if rerr := s.release(links); rerr != nil || !errors.Is(err, errThere) {
		return errors.Join(err, rerr)
	}
	return nil
}

// errThere ends a transaction that has nothing to do.
var errThere = errors.New("the snapshot is there already")
