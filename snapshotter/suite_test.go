//go:build linux

package snapshotter_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/snapshotter"
)

// TestSuite runs containerd's own suite for snapshotters, unmodified, on ordinary layers.
func TestSuite(t *testing.T) {
	hosttest.Root(t)
	state := t.TempDir()
	// By this name the suite knows that directories cannot be renamed across layers.
	testsuite.SnapshotterSuite(t, "overlayfs", func(ctx context.Context, root string) (snapshots.Snapshotter, func() error, error) {
		s, err := snapshotter.New(ctx, snapshotter.Config{
			Root: root, State: filepath.Join(state, filepath.Base(filepath.Dir(root))), ObjectsDir: t.TempDir(),
		}, ipfstest.NewMemory(), noLazy)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Close, nil
	})
}
