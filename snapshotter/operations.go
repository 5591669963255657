//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
)

// Stat implements snapshots.Snapshotter. When it returns for the last layer of an ipcs
// image, the blobs of all are in containerd's content store.
func (s *Snapshotter) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	var id string
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	if err == nil && info.Labels[labelRoot] != "" {
		s.blobs.ensure(ctx, info, s.isLast(info), func(ctx context.Context, root cid.Cid) ([]byte, error) {
			return s.layerRoot(ctx, id, root)
		})
	}
	return info, err
}

// Update implements snapshots.Snapshotter. Labels of our own stay as they are.
func (s *Snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (updated snapshots.Info, err error) {
	for _, path := range fieldpaths {
		if label, ok := strings.CutPrefix(path, "labels."); ok && isOwn(label) {
			return updated, invalid("update snapshot %s: label %s is kept by the snapshotter", info.Name, label)
		}
	}
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, old, _, err := storage.GetInfo(ctx, info.Name)
		if err != nil {
			return err
		}
		info.Labels = foreignLabels(info.Labels)
		for name, value := range old.Labels {
			if isOwn(name) {
				if info.Labels == nil {
					info.Labels = make(map[string]string)
				}
				info.Labels[name] = value
			}
		}
		updated, err = storage.UpdateInfo(ctx, info, fieldpaths...)
		return err
	})
	return updated, err
}

// foreignLabels returns labels without those that are ours.
func foreignLabels(labels map[string]string) map[string]string {
	labels = maps.Clone(labels)
	maps.DeleteFunc(labels, func(name, _ string) bool { return isOwn(name) })
	return labels
}

// isOwn says whether a label is ours.
func isOwn(label string) bool { return strings.HasPrefix(label, labelOwn) || label == labelBlob }

// Usage implements snapshots.Snapshotter. An ipcs snapshot uses nothing of its own: its
// objects are shared, and counted by the store.
func (s *Snapshotter) Usage(ctx context.Context, key string) (usage snapshots.Usage, err error) {
	var info snapshots.Info
	var id string
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, usage, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil || info.Kind != snapshots.KindActive {
		return usage, err
	}
	used, err := fs.DiskUsage(ctx, s.upperPath(id))
	return snapshots.Usage(used), err
}

// Mounts implements snapshots.Snapshotter. After a restart it mounts again what the
// snapshot lies on.
func (s *Snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var snapshot storage.Snapshot
	var links []link
	var labels map[string]string
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		if snapshot, err = storage.GetSnapshot(ctx, key); err != nil {
			return fmt.Errorf("snapshot %s: %w", key, err)
		}
		_, info, _, err := storage.GetInfo(ctx, key)
		if err != nil {
			return err
		}
		labels = info.Labels
		links, err = lineage(ctx, info.Parent)
		return err
	})
	if err != nil {
		return nil, err
	}
	u := use{plain: snapshot.Kind == snapshots.KindActive && isExtraction(key, labels)}
	if u.ids, err = s.mappingOf(labels, links); err != nil {
		return nil, err
	}
	l, err := s.lower(ctx, key, links, u)
	if err != nil {
		return nil, fmt.Errorf("mounts of snapshot %s: %w", key, err)
	}
	if isRun(snapshot.Kind, key, labels) {
		s.used(ctx, key, snapshot.ID, links, stageOf(snapshot.Kind, stageMounted))
	}
	return s.mounts(snapshot.Kind, snapshot.ID, l), nil
}

// Commit implements snapshots.Snapshotter.
func (s *Snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	info, err := applyOpts(opts)
	if err != nil {
		return err
	}
	var id string
	var active snapshots.Info
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, active, _, err = storage.GetInfo(ctx, key)
		return err
	})
	if err != nil {
		return err
	}
	if active.Labels[labelAdopted] != "" && active.Kind == snapshots.KindActive {
		err = s.commitAdopted(ctx, name, id, active, info.Labels)
	} else {
		err = s.commitActive(ctx, name, key, id, info)
	}
	if err == nil {
		s.merged.release(key)
		s.mapped.release(key)
		s.unused(key)
	}
	return err
}

// commitActive commits a snapshot with what its directory has.
func (s *Snapshotter) commitActive(ctx context.Context, name, key, id string, info snapshots.Info) error {
	usage, err := fs.DiskUsage(ctx, s.upperPath(id))
	if err != nil {
		return fmt.Errorf("measure snapshot %s: %w", key, err)
	}
	return s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		own := []snapshots.Opt{snapshots.WithLabels(info.Labels), snapshots.WithParent(info.Parent)}
		if _, err := storage.CommitActive(ctx, key, name, snapshots.Usage(usage), own...); err != nil {
			return fmt.Errorf("commit snapshot %s: %w", key, err)
		}
		return nil
	})
}

// Remove implements snapshots.Snapshotter. The last snapshot of a chain takes the image
// of the chain with it.
func (s *Snapshotter) Remove(ctx context.Context, key string) error {
	var links []link // of an ipcs snapshot
	var dirs []string
	removed, err := s.aboutToRemove(ctx, key)
	if err != nil {
		return err
	}
	defer removed()
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, info, _, err := storage.GetInfo(ctx, key)
		if err != nil {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
		if info.Labels[labelRoot] != "" {
			if links, err = lineage(ctx, key); err != nil {
				return err
			}
		}
		if _, _, err = storage.Remove(ctx, key); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", key, err)
		}
		dirs, err = s.abandoned(ctx)
		return err
	})
	if err != nil {
		return err
	}
	// It is gone: what cannot be cleared away now is left to Cleanup.
	s.merged.release(key)
	s.mapped.release(key)
	s.blobs.forget(key)
	s.unused(key)
	if len(links) > 0 {
		if err := s.release(links); err != nil {
			s.log.Warn("cannot clear away a chain", "snapshot", key, "err", err)
		}
	}
	if err := removeAll(dirs); err != nil {
		s.log.Warn("cannot clear away directories of snapshots", "snapshot", key, "err", err)
	}
	return nil
}

// Walk implements snapshots.Snapshotter.
func (s *Snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	var failed error // of fn
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		return storage.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			failed = fn(ctx, info)
			return failed
		}, filters...)
	})
	if failed == nil && errdefs.IsNotFound(err) {
		return nil // there was never a snapshot: over gRPC, containerd would take this for a fault
	}
	return err
}

// Cleanup implements snapshots.Cleaner: it removes directories and images that no
// snapshot has.
func (s *Snapshotter) Cleanup(ctx context.Context) error {
	var dirs []string
	err := s.ms.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		dirs, err = s.abandoned(ctx)
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(removeAll(dirs), s.chains.collect())
}

// abandoned lists the directories that no snapshot has. It needs a transaction that
// writes, so that no snapshot comes into being meanwhile.
func (s *Snapshotter) abandoned(ctx context.Context) ([]string, error) {
	ids, err := storage.IDMap(ctx)
	if err != nil && !errdefs.IsNotFound(err) { // there was never a snapshot
		return nil, err
	}
	parent := filepath.Join(s.root, snapshotsDir)
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, e := range entries {
		if _, ok := ids[e.Name()]; !ok {
			dirs = append(dirs, filepath.Join(parent, e.Name()))
		}
	}
	return dirs, nil
}

func removeAll(dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}
