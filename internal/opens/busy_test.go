//go:build linux

package opens_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
)

// TestNotBusy unmounts an overlay, at the first attempt, while what was opened on it was not
// told yet.
func TestNotBusy(t *testing.T) {
	v, o := newOverlay(t), newObserver()
	o.groups[v.upper] = "g"
	o.opened = make(chan string) // who tells waits for us
	at := v.mount()
	dir, _ := hosttest.Inside(t, at)
	stop := o.track(t, 1<<40)
	o.until(t, filepath.Join(dir, "a"), "g:a")
	read(t, filepath.Join(at, "a"))
	read(t, filepath.Join(at, "d/b"))
	read(t, filepath.Join(dir, "d/b"))
	if err := unix.Unmount(at, 0); err != nil {
		t.Errorf("unmount: %v", err)
	}
	go stop()
	for {
		select {
		case got := <-o.opened:
			if got != "g:a" && got != "g:d/b" {
				t.Errorf("told of %s", got)
			}
		case <-o.ended:
			return
		}
	}
}

// TestLongPath opens a file whose path is longer than the kernel can tell, as any container
// can: it is not told of, and others are.
func TestLongPath(t *testing.T) {
	v, o := newOverlay(t), newObserver()
	o.groups[v.upper] = "g"
	dir, _ := hosttest.Inside(t, v.mount())
	o.track(t, 1<<40)
	o.until(t, filepath.Join(dir, "a"), "g:a")
	at, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	name := strings.Repeat("x", 250)
	for range 20 {
		if err == nil {
			err = unix.Mkdirat(at, name, 0o700)
		}
		var below int
		if err == nil {
			below, err = unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(at)
		at = below
	}
	defer unix.Close(at)
	file, err := unix.Openat(at, "file", unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(file)
	o.until(t, filepath.Join(dir, "d/b"), "g:d/b")
}
