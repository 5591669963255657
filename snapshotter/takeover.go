//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// What one process leaves to the next: snapshots, and the lazy file system that containers
// read from.

// running is what may be mounted of containers that a process before served.
type running struct {
	roots map[cid.Cid]struct{} // of layers
	used  map[string]runOn     // snapshots that containers may run on
}

// runOn is a snapshot that a container may run on.
type runOn struct {
	id    string
	links []link // parents
}

// load takes up the ipcs snapshots that are there: their files and chains count, and
// indexes and mounts follow when they are asked for.
func (s *Snapshotter) load(ctx context.Context) (running, error) {
	found := running{roots: make(map[cid.Cid]struct{}), used: make(map[string]runOn)}
	beside := make(map[cid.Cid]string) // layer roots, to snapshots that have them
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		return s.walkLazy(ctx, func(id string, info snapshots.Info, links []link) {
			if info.Kind == snapshots.KindCommitted {
				s.retain(links)
				beside[links[0].root] = id
				return
			}
			for _, l := range links {
				if l.lazy() {
					found.roots[l.root] = struct{}{}
				}
			}
			if isRun(info.Kind, info.Name, info.Labels) {
				found.used[info.Name] = runOn{id, links}
			}
		})
	})
	if err != nil {
		return running{}, fmt.Errorf("read the snapshots in %s: %w", s.root, err)
	}
	s.restoreRoots(ctx, beside)
	return found, s.chains.open()
}

// walkLazy calls fn with each committed ipcs snapshot and its lineage, and with each other
// snapshot that has an ipcs layer below it, and that lineage.
func (s *Snapshotter) walkLazy(ctx context.Context, fn func(id string, info snapshots.Info, links []link)) error {
	var found []snapshots.Info
	err := storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
		if info.Kind != snapshots.KindCommitted || info.Labels[labelRoot] != "" {
			found = append(found, info)
		}
		return nil
	})
	if err != nil && !errdefs.IsNotFound(err) { // there was never a snapshot
		return err
	}
	for _, info := range found {
		name := info.Name
		if info.Kind != snapshots.KindCommitted {
			name = info.Parent
		}
		if name == "" {
			continue
		}
		links, err := lineage(ctx, name)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(links, func(l link) bool { return l.lazy() }) {
			continue
		}
		id, _, _, err := storage.GetInfo(ctx, info.Name)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", info.Name, err)
		}
		fn(id, info, links)
	}
	return nil
}

// recall makes the files of layers known before the lazy file system is served: containers
// that have run for longer than this process may ask for them.
func (s *Snapshotter) recall(ctx context.Context, roots map[cid.Cid]struct{}) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLoads)
	for root := range roots {
		group.Go(func() error {
			l, err := s.opener.open(ctx, root)
			if err != nil {
				s.log.Error("containers that run cannot read what they have not read yet of a layer", "err", err)
				return nil
			}
			if _, _, err := s.files.learn(root, l.table); err != nil {
				return err
			}
			s.opener.forget([]cid.Cid{root}) // it is mounted, or will be from its image
			return nil
		})
	}
	return group.Wait()
}

// mountLazy mounts the lazy file system, or takes up the one of a process before. If there was
// one that could not be taken up, containers lie on what is dead, and may still when the next
// process takes up the new one.
func (s *Snapshotter) mountLazy(ctx context.Context, mount MountLazy, before running) error {
	old, err := deviceOf(s.lazyPath)
	if err != nil {
		return err
	}
	if s.lazy, err = mount(s.lazyPath, s); err != nil {
		return fmt.Errorf("mount the lazy file system: %w", err)
	}
	now, err := deviceOf(s.lazyPath)
	if err == nil {
		err = s.healer.heal(ctx, slices.Collect(maps.Keys(before.roots)), now != old)
	}
	if err != nil {
		return errors.Join(err, s.lazy.Close())
	}
	return nil
}

// closeLazy ends the lazy file system, or leaves it if it may be in use.
func (s *Snapshotter) closeLazy() error {
	used, err := s.lazyUsed()
	if used || err != nil {
		return errors.Join(err, s.lazy.Close())
	}
	if err := s.lazy.Unmount(); err != nil {
		return err
	}
	// A process that is being started in a mount namespace of its own may have a copy of the mount for a
	// moment; the folder of the next one may as well be there.
	if err := os.Remove(s.lazyPath); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
		return err
	}
	return nil
}

// mayBeMounted says whether there is a snapshot on ipcs layers that somebody may have
// mounted.
func (s *Snapshotter) mayBeMounted(ctx context.Context) (used bool, err error) {
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		return s.walkLazy(ctx, func(_ string, info snapshots.Info, _ []link) {
			used = used || info.Kind != snapshots.KindCommitted
		})
	})
	return used, err
}
