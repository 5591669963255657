//go:build linux

package snapshotter_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"

	"github.com/hinshun/ipcs/ipfs"
)

// layered is a snapshotter whose committed snapshots are ipcs layers: Commit makes a layer
// of what was changed and prepares it as a pull does, so that whatever comes next lies on
// chains of them. As containerd's database does, it has names of its own for what the
// snapshotter below names.
type layered struct {
	snapshots.Snapshotter
	convert func(ctx context.Context, tarball []byte) (ipfs.Block, error)

	mu     sync.Mutex
	chains map[string]chain  // by name: the snapshot below, and its chainID
	names  map[string]string // back
	number int
}

func newLayered(below snapshots.Snapshotter, convert func(context.Context, []byte) (ipfs.Block, error)) *layered {
	return &layered{Snapshotter: below, convert: convert, chains: map[string]chain{}, names: map[string]string{}}
}

// pulled is how the labels begin that a layer has from its pull.
var pulled = []string{"containerd.io/snapshot", "containerd.io/gc.ref.", "com.github.hinshun.ipcs."}

// below returns what the snapshotter below calls a snapshot. Those that are not committed
// have one name.
func (s *layered) below(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.chains[name]; ok {
		return c.parent
	}
	return name
}

// above returns what is said of a snapshot, without what a pull has added.
func (s *layered) above(info snapshots.Info) snapshots.Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []*string{&info.Name, &info.Parent} {
		if n, ok := s.names[*name]; ok {
			*name = n
		}
	}
	info.Labels = maps.Clone(info.Labels)
	maps.DeleteFunc(info.Labels, func(label, _ string) bool {
		return slices.ContainsFunc(pulled, func(prefix string) bool { return strings.HasPrefix(label, prefix) })
	})
	return info
}

// taken says whether a name is one of a committed snapshot, which the one below cannot know.
func (s *layered) taken(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.chains[name]; ok {
		return fmt.Errorf("snapshot %s: %w", name, errdefs.ErrAlreadyExists)
	}
	return nil
}

func (s *layered) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := s.taken(key); err != nil {
		return nil, err
	}
	return s.Snapshotter.Prepare(ctx, key, s.below(parent), opts...)
}

func (s *layered) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	if err := s.taken(key); err != nil {
		return nil, err
	}
	return s.Snapshotter.View(ctx, key, s.below(parent), opts...)
}

func (s *layered) Stat(ctx context.Context, name string) (snapshots.Info, error) {
	info, err := s.Snapshotter.Stat(ctx, s.below(name))
	return s.above(info), err
}

func (s *layered) Usage(ctx context.Context, name string) (snapshots.Usage, error) {
	return s.Snapshotter.Usage(ctx, s.below(name))
}

func (s *layered) Update(ctx context.Context, info snapshots.Info, fields ...string) (snapshots.Info, error) {
	info.Name = s.below(info.Name)
	info, err := s.Snapshotter.Update(ctx, info, fields...)
	return s.above(info), err
}

func (s *layered) Remove(ctx context.Context, name string) error {
	if err := s.Snapshotter.Remove(ctx, s.below(name)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, s.chains[name].parent)
	delete(s.chains, name)
	return nil
}

// Walk filters what it shows, names and parents being others below.
func (s *layered) Walk(ctx context.Context, fn snapshots.WalkFunc, want ...string) error {
	filter, err := filters.ParseAll(want...)
	if err != nil {
		return err
	}
	return s.Snapshotter.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		info = s.above(info)
		if !filter.Match(fields(info)) {
			return nil
		}
		return fn(ctx, info)
	})
}

// fields has the fields of a snapshot that filters name.
func fields(info snapshots.Info) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		switch path[0] {
		case "kind":
			return strings.ToLower(info.Kind.String()), true
		case "name":
			return info.Name, true
		case "parent":
			return info.Parent, true
		case "labels":
			value, ok := info.Labels[strings.Join(path[1:], ".")]
			return value, ok
		}
		return "", false
	})
}

// Commit replaces an active snapshot by the ipcs layer of what it has changed.
func (s *layered) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	if err := s.taken(name); err != nil {
		return err
	}
	info, err := s.Snapshotter.Stat(ctx, key)
	if err != nil {
		return err
	}
	tarball, err := s.changes(ctx, info)
	if err != nil {
		return err
	}
	root, err := s.convert(ctx, tarball)
	if err != nil {
		return err
	}
	if err := s.Snapshotter.Remove(ctx, key); err != nil {
		return err
	}
	c, err := s.pull(ctx, info.Parent, root, opts)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chains[name], s.names[c.parent] = c, name
	return nil
}

// pull prepares a layer on a snapshot below as containerd does, with the options of the
// commit that it stands for.
func (s *layered) pull(ctx context.Context, parent string, root ipfs.Block, opts []snapshots.Opt) (c chain, err error) {
	s.mu.Lock()
	on := s.chains[s.names[parent]].id
	s.mu.Unlock()
	labels, id := layerLabels(on, root)
	_, err = s.Snapshotter.Prepare(ctx, "extract-1 "+id.String(), parent, append(opts, snapshots.WithLabels(labels))...)
	if !errdefs.IsAlreadyExists(err) {
		return c, fmt.Errorf("prepare of an ipcs layer: %w; want already exists", err)
	}
	c.id = id
	err = s.Snapshotter.Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		c.parent = info.Name
		return nil
	}, fmt.Sprintf(`kind==committed,labels.%q==%s,parent==%q`, snapshots.LabelSnapshotRef, id, parent))
	if err == nil && c.parent == "" {
		err = errors.New("no snapshot for the layer")
	}
	return c, err
}

// changes returns what an active snapshot has changed, as a tar that is unlike any other.
func (s *layered) changes(ctx context.Context, info snapshots.Info) (tarball []byte, err error) {
	changed, err := s.Snapshotter.Mounts(ctx, info.Name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = mounted(changed, func(to string) error {
		if info.Parent == "" {
			return archive.WriteDiff(ctx, &b, "", to)
		}
		view := info.Name + "-before"
		before, err := s.Snapshotter.View(ctx, view, info.Parent)
		if err != nil {
			return err
		}
		err = mounted(before, func(from string) error { return archive.WriteDiff(ctx, &b, from, to) })
		return errors.Join(err, s.Snapshotter.Remove(ctx, view))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++ // names are of one snapshot each, so no two layers may be the same
	return append(b.Bytes(), make([]byte, 512*s.number)...), err
}

// mounted calls fn with the path of what is mounted as long as it runs.
func mounted(mounts []mount.Mount, fn func(path string) error) error {
	dir, err := os.MkdirTemp("", "layered-")
	if err != nil {
		return err
	}
	if err := mount.All(mounts, dir); err != nil {
		return errors.Join(err, os.Remove(dir))
	}
	err = fn(dir)
	return errors.Join(err, mount.UnmountAll(dir, 0), os.Remove(dir))
}
