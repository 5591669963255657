//go:build linux

package opens_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/opens"
)

// overlay is a folder, and what overlays on it have.
type overlay struct {
	t            testing.TB
	lower, upper string
	work         string
}

func newOverlay(t testing.TB) *overlay {
	t.Helper()
	hosttest.Root(t)
	dir := t.TempDir()
	o := &overlay{t, filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work")}
	for _, path := range []string{filepath.Join(o.lower, "d"), o.upper, o.work} {
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "d/b"} {
		if err := os.WriteFile(filepath.Join(o.lower, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

// mount mounts an overlay until the test ends.
func (o *overlay) mount() string {
	o.t.Helper()
	dir := o.t.TempDir()
	options := "lowerdir=" + o.lower + ",upperdir=" + o.upper + ",workdir=" + o.work
	if err := unix.Mount("overlay", dir, "overlay", 0, options); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		if err := unmount(dir); err != nil && err != unix.EINVAL {
			o.t.Error(err)
		}
	})
	return dir
}

// unmount tries again while the mount is busy, as containerd does: an event that was not
// read yet holds its file.
func unmount(dir string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := unix.Unmount(dir, 0); err != unix.EBUSY {
			return err
		}
		<-tick.C
	}
}

// TestWatch watches an overlay that is mounted, unmounted, and mounted again elsewhere.
func TestWatch(t *testing.T) {
	o := newOverlay(t)
	other := newOverlay(t).mount()
	if err := os.WriteFile(filepath.Join(other, "c"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	opened, ended := make(chan string, 1000), make(chan error)
	go func() { ended <- opens.Watch(ctx, o.upper, func(path string) { opened <- path }) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range 2 {
		dir := o.mount()
		for _, name := range []string{"a", "d/b"} {
			// It may take a moment until the overlay is marked: open until then.
			for got := ""; got != name; {
				for _, path := range []string{filepath.Join(other, "c"), filepath.Join(dir, name)} {
					if _, err := os.ReadFile(path); err != nil {
						t.Fatal(err)
					}
				}
				select {
				case got = <-opened:
					if got != "a" && got != "d/b" { // those of before may come late
						t.Errorf("%s was opened", got)
					}
				case err := <-ended:
					t.Fatalf("it ended: %v", err)
				case <-tick.C:
				}
			}
		}
		if err := unmount(dir); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWatchNothing ends while there is no overlay.
func TestWatchNothing(t *testing.T) {
	o := newOverlay(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := opens.Watch(ctx, o.upper, func(string) {}); err != nil {
		t.Error(err)
	}
}
