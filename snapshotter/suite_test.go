//go:build linux

package snapshotter_test

import (
	"bytes"
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/fs/fstest"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/snapshotter"
)

// suiteName is what containerd's suite knows by that directories cannot be renamed across
// layers.
const suiteName = "overlayfs"

// TestSuite runs containerd's own suite for snapshotters, unmodified, on ordinary layers.
func TestSuite(t *testing.T) {
	hosttest.Root(t)
	state := t.TempDir()
	testsuite.SnapshotterSuite(t, suiteName, func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := snapshotter.New(ctx, snapshotter.Config{
			Root: root, State: filepath.Join(state, filepath.Base(filepath.Dir(root))), ObjectsDir: t.TempDir(),
		}, ipfstest.NewMemory(), noLazy)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	})
}

// TestSuiteOnLayers runs the same suite with each snapshot that it commits made an ipcs
// layer, so that all that is done in it is done above ipcs layers, to their files.
func TestSuiteOnLayers(t *testing.T) {
	testsuite.SnapshotterSuite(t, suiteName, func(_ context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		l := newLabIn(t, root)
		return newLayered(l.Snapshotter, l.writeLayer), l.Close, nil
	})
}

// TestFSSuite runs the suite that containerd has for what moves trees about, on trees that
// are chains of ipcs layers.
func TestFSSuite(t *testing.T) {
	hosttest.Root(t)
	fstest.FSSuite(t, &trees{t: t})
}

// trees makes an ipcs layer of each change to a tree.
type trees struct {
	t    *testing.T
	lab  *lab
	top  chain
	tree string // as it should be
}

// TestContext begins a test with an empty tree.
func (s *trees) TestContext(ctx context.Context) (context.Context, func(), error) {
	s.lab, s.top, s.tree = newLab(s.t), chain{}, s.t.TempDir()
	return ctx, func() {}, nil
}

// Apply changes the tree, and shows it as a container sees it.
func (s *trees) Apply(ctx context.Context, change fstest.Applier) (path string, done func(), err error) {
	before := s.t.TempDir()
	if err := fs.CopyDir(before, s.tree); err != nil {
		return "", nil, err
	}
	if err := change.Apply(s.tree); err != nil {
		return "", nil, err
	}
	var tarball bytes.Buffer
	if err := archive.WriteDiff(ctx, &tarball, before, s.tree); err != nil {
		return "", nil, err
	}
	s.top = s.lab.pull(s.top, s.lab.convert(tarball.Bytes()))
	return s.lab.view(s.lab.Snapshotter, s.top.parent), nil, nil
}
