//go:build linux

package snapshotter_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// TestUses is told of files that containers open though all are on disk, also of containers
// that run for longer than this process.
func TestUses(t *testing.T) {
	l := newLab(t)
	used := make(chan cid.Cid, 1000)
	l.config.Used = func(c cid.Cid) { used <- c }
	l.restart()
	c := l.abc()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	opened := func(path, name string) {
		t.Helper()
		// It may take a moment until the kernel tells of a mount: read until it does.
		for {
			if _, err := os.ReadFile(filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-used:
				if got == cidOf(t, "is "+name) {
					return
				}
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatalf("nobody said that %s is used", name)
			}
		}
	}
	_, first := l.container(c.parent)
	opened(first, "a")
	key, second := l.container(c.parent)
	opened(second, "b")
	l.restart()
	opened(first, "c")
	if err := l.Remove(l.ctx, key); err != nil {
		t.Fatal(err)
	}
	opened(first, "b")
}
