//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

// labelAdopted is on an active snapshot that a layer was to be unpacked into: the CID of the
// layer root that it becomes when it is committed.
const labelAdopted = labelOwn + "adopted"

// Adopt is asked by a differ that is to unpack an ipcs layer into a directory. If that is of
// a snapshot here which nothing was written to, nothing needs to be unpacked: the snapshot
// is the ipcs layer once it is committed. Clients that do not know snapshotters which have
// layers already (they prepare, have a differ apply, and commit, as BuildKit does) thus get
// images that are mounted lazily, too.
//
// What they commit proves itself: the chainID on our record is made of the parent's and of
// the digest that the layer root has, not of what the client calls the snapshot. Of the
// layer's annotations only those are taken that are hints. Others are for containerd, which
// shares snapshots by one of them, and come from whoever made the image.
func (s *Snapshotter) Adopt(ctx context.Context, dir string, desc ocispec.Descriptor) (adopted bool, err error) {
	id, ok := s.idOf(dir)
	if !ok || s.support.err != nil {
		return false, nil
	}
	root, err := mediatype.RootCid(desc.Digest)
	if err != nil {
		return false, invalid("layer %s: %w", desc.Digest, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		return false, err
	}
	s.hint(desc.Digest, namedPeers(desc.Annotations[mediatype.AnnotationPeers]))
	if image, err := cid.Decode(desc.Annotations[mediatype.AnnotationImage]); err == nil {
		s.opener.prefetch(ctx, image, s.files.known, func(context.Context) {
			s.origins.Claimed(image, desc.Annotations[mediatype.AnnotationOrigin])
		})
	}
	l, err := s.opener.open(ctx, root)
	if err != nil {
		return false, fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		info, err := activeOf(ctx, id)
		if err != nil || !isExtraction(info.Name, info.Labels) {
			return err
		}
		if had := info.Labels[labelAdopted]; had != "" && had != root.String() {
			return fmt.Errorf("snapshot %s is layer %s already, and another is applied to it: %w", info.Name, had, errdefs.ErrFailedPrecondition)
		}
		if info.Labels == nil {
			info.Labels = make(map[string]string)
		}
		for _, hint := range []string{mediatype.AnnotationImage, mediatype.AnnotationFill, mediatype.AnnotationPeers, mediatype.AnnotationOrigin} {
			if value := desc.Annotations[hint]; value != "" {
				info.Labels[hint] = value
			}
		}
		info.Labels[labelAdopted] = root.String()
		if err := os.WriteFile(s.rootPath(id), l.root.Data, 0o600); err != nil {
			return fmt.Errorf("write the layer root: %w", err)
		}
		_, err = storage.UpdateInfo(ctx, info)
		adopted = err == nil
		return err
	})
	return adopted, err
}

// idOf returns which snapshot a directory for changes belongs to.
func (s *Snapshotter) idOf(dir string) (id string, ok bool) {
	id = filepath.Base(filepath.Dir(dir))
	return id, dir == s.upperPath(id)
}

// activeOf returns the active snapshot with an ID. It needs a transaction.
func activeOf(ctx context.Context, id string) (snapshots.Info, error) {
	keys, err := storage.IDMap(ctx)
	if err != nil {
		return snapshots.Info{}, err
	}
	_, info, _, err := storage.GetInfo(ctx, keys[id])
	if err == nil && info.Kind != snapshots.KindActive {
		err = fmt.Errorf("snapshot %s is %v: %w", info.Name, info.Kind, errdefs.ErrFailedPrecondition)
	}
	return info, err
}

// commitAdopted commits an active snapshot that stands for a layer.
func (s *Snapshotter) commitAdopted(ctx context.Context, name, id string, info snapshots.Info, labels map[string]string) error {
	root, err := cid.Decode(info.Labels[labelAdopted])
	if err != nil {
		return fmt.Errorf("snapshot %s: layer root on record: %w", info.Name, err)
	}
	l, err := s.opener.open(ctx, root)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrUnavailable)
	}
	links, err := s.parents(ctx, info.Parent)
	if err != nil {
		return err
	}
	own, err := adoptedLabels(root, links, info.Labels, labels)
	if err != nil {
		return err
	}
	// As in commitLayer.
	links = append([]link{{root: root}}, links...)
	s.retain(links)
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		entries, err := os.ReadDir(s.upperPath(id))
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%q and more was written to it beside layer %s: %w", entries[0].Name(), root, errdefs.ErrFailedPrecondition)
		}
		_, err = storage.CommitActive(ctx, info.Name, name, snapshots.Usage{}, snapshots.WithLabels(own))
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("commit snapshot %s: %w", info.Name, err), s.release(links))
	}
	if err := s.learnFiles(root, l.table); err != nil {
		return err
	}
	s.shared.add(root)
	return nil
}

// adoptedLabels are those of the ipcs snapshot that an active one becomes: what its layer's
// annotations say, what the commit says, and ours. The chainID by which containerd shares the
// snapshot is the one that is proven, or none.
func adoptedLabels(root cid.Cid, links []link, active, commit map[string]string) (map[string]string, error) {
	d, err := mediatype.LayerDigest(root)
	if err != nil {
		return nil, err
	}
	own := foreignLabels(active)
	if own == nil {
		own = make(map[string]string)
	}
	maps.Copy(own, commit)
	own[labelRoot], own[labelBlob] = root.String(), d.String()
	switch {
	case len(links) == 0:
		own[labelChain] = d.String()
	case links[0].chain != "":
		own[labelChain] = identity.ChainID([]digest.Digest{links[0].chain, d}).String()
	}
	if ref := own[snapshots.LabelSnapshotRef]; own[labelChain] == "" {
		delete(own, snapshots.LabelSnapshotRef)
	} else if ref != "" && ref != own[labelChain] {
		return nil, contradiction("a snapshot is committed as %s, and its layers make %s", ref, own[labelChain])
	}
	return own, nil
}
