package e2e

import (
	"testing"

	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// servedKills is how often the daemon is killed while a container reads.
const servedKills = 5

// hashSome reads some files that are not here, four at a time, and prints their hashes.
const hashSome = `find /usr/bin /usr/share/doc -xdev -type f -print0 | sort -z | head -z -n 400 | xargs -0 -P 4 -n 8 sha256sum | sort -k 2`

// TestServed has images served over FUSE, as where the kernel mounts no EROFS, and also the
// files in them: a container sees the tree that overlayfs shows, and one that reads does not
// notice that the daemon dies.
func TestServed(t *testing.T) {
	labtest.Nightly(t) // TestFallbacks of the snapshotter has each way, too
	w := newWorld(t, "served", 0)
	nasty, debian := w.push(labtest.Image(t, "nasty")), w.push(labtest.Image(t, "debian"))
	w.pull(nasty, "overlayfs")
	w.pull(debian, "overlayfs")
	want, hashes := w.tree(nasty, "overlayfs"), w.run("want", debian, "overlayfs", "sh", "-c", hashSome)
	ref, lazy := w.convert(nasty), w.convert(debian)
	for _, mode := range []struct{ image, data string }{{"fuse", "auto"}, {"fuse", "served"}} {
		t.Run(mode.data, func(t *testing.T) {
			w := w.with(t)
			w.must(w.daemon.Stop())
			w.must(w.daemon.SetMounts(mode.image, mode.data))
			w.must(w.daemon.Start(t.Context()))
			w.reached()
			w.pull(ref, "ipcs")
			w.same(want, w.tree(ref, "ipcs"), w.touched(nasty))
			w.pull(lazy, "ipcs")
			w.killed(lazy, hashes)
			status, err := w.daemon.Status(t.Context())
			w.must(err)
			for _, c := range status.Chains {
				if c.Mode != mode.image || mode.data != "auto" && c.Data != mode.data {
					t.Errorf("a chain is mounted as %s and %s", c.Mode, c.Data)
				}
			}
			w.ctr("image", "rm", "--sync", ref, lazy)
		})
	}
}

// killed has a container hash files while the daemon is killed again and again.
func (w *world) killed(ref, want string) {
	w.t.Helper()
	reader := w.start("reader", ref)
	read := reader.begin(w.t.Context(), "hash", "sh", "-c", hashSome)
	for range servedKills {
		w.daemon.Kill()
		w.must(w.daemon.Start(w.t.Context()))
	}
	got := <-read
	if got.err != nil {
		w.t.Fatalf("read: %v", got.err)
	}
	if got.out != want {
		w.t.Errorf("%d lines of hashes differ from those of overlayfs", len(diffLines(want, got.out)))
	}
	w.reached()
	w.ctr("task", "rm", "--force", reader.id)
	w.ctr("container", "rm", reader.id)
}
