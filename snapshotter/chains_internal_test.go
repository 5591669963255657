//go:build linux

package snapshotter

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

// TestChainComesToLifeAgain removes the last snapshot of a chain while another is made: what
// that one has been given stays mounted.
func TestChainComesToLifeAgain(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test mounts: run it as root")
	}
	images, mounts, hide := t.TempDir(), t.TempDir(), t.TempDir()
	if err := makeHide(hide); err != nil {
		t.Fatal(err)
	}
	s := (&trial{image: images + "/probe", dir: t.TempDir() + "/probe", hide: hide}).probe()
	if s.err != nil {
		t.Fatal(s.err)
	}
	cs := newChains(images, mounts, func(image, dir string) error { return mountImage(s.image, nil, image, dir) }, s.data, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		if err := cs.close(); err != nil {
			t.Error(err)
		}
	})
	r := firstRun([]link{{}})
	build := func(context.Context, run) (erofs.Tree, error) {
		return erofs.Inodes{{Mode: unix.S_IFDIR | 0o755}}, nil
	}
	cs.retain(r)
	if _, err := cs.ensure(t.Context(), r, build); err != nil {
		t.Fatal(err)
	}
	c, _ := cs.get(r.id)
	c.mu.Lock()
	released := make(chan error)
	go func() { released <- cs.release(r) }()
	for cs.used(c) {
		runtime.Gosched()
	}
	// The last user is gone, its mount is not: now comes another one.
	cs.retain(r)
	if again, _ := cs.get(r.id); again != c {
		t.Error("the chain is begun anew while the mount of the old one is taken away")
	}
	c.mu.Unlock()
	if err := <-released; err != nil {
		t.Error(err)
	}
	if !isImageMount(cs.mountPoint(r.id)) {
		t.Error("a chain in use is not mounted")
	}
	if err := cs.release(r); err != nil {
		t.Error(err)
	}
	if _, ok := cs.get(r.id); ok || isImageMount(cs.mountPoint(r.id)) {
		t.Error("a chain without a user is left")
	}
}
