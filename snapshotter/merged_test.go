//go:build linux

package snapshotter_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/snapshotter"
)

// TestMergedDies ends the FUSE mounts of images, as the death of the process that serves them
// does, while a snapshot lies on them by a mount that others share: the next snapshot gets one
// that works. On top there is an ordinary layer or none.
func TestMergedDies(t *testing.T) {
	for _, kinds := range []string{"i", "io"} {
		t.Run(kinds, func(t *testing.T) {
			l := newLab(t)
			l.config.Mounts = snapshotter.Mounts{Image: snapshotter.ImageFuse}
			l.restart()
			if err := l.Supported(); err != nil {
				hosttest.Lacking(t, err.Error())
			}
			ipcs, plain := l.build(kinds, stack()[:len(kinds)])
			var keys []string
			extract := func() string {
				t.Helper()
				key := l.key("extract-1")
				mounts, err := l.Prepare(l.ctx, key, ipcs.parent, snapshots.WithLabels(map[string]string{snapshots.LabelSnapshotRef: key}))
				if err != nil {
					t.Fatal(err)
				}
				keys = append(keys, key)
				return l.mount(mounts)
			}
			merged := func() []string { return mountsBelow(t, filepath.Join(l.config.State, "merged")) }
			extract()
			images, err := filepath.Glob(filepath.Join(l.config.State, "chains", "*"))
			if err != nil || len(images) != 1 || len(merged()) != 1 {
				t.Fatalf("images %v, merged %v, %v", images, merged(), err)
			}
			busy, err := os.Open(images[0]) // so that it stays mounted
			if err != nil {
				t.Fatal(err)
			}
			if err := unix.Unmount(images[0], unix.MNT_FORCE); !errors.Is(err, unix.EBUSY) {
				t.Fatal(err)
			}
			if err := busy.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadDir(images[0]); !errors.Is(err, unix.ENOTCONN) {
				t.Fatalf("the image is served: %v", err)
			}
			compareTrees(t, extract(), l.view(l.overlay, plain.parent))
			for _, key := range keys {
				if n := len(merged()); n != 1 {
					t.Errorf("%d mounts are held", n)
				}
				if err := l.Remove(l.ctx, key); err != nil {
					t.Fatal(err)
				}
			}
			if left := merged(); len(left) > 0 {
				t.Errorf("left mounted: %v", left)
			}
		})
	}
}
