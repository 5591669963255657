package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tree"
)

// TestLimit reads an image through a store that holds a fraction of it: files are evicted
// while they are mounted, and nobody notices, in the mount that has used them or a new one.
func TestLimit(t *testing.T) {
	const limit = 24 << 20
	w := newWorldWith(t, "limit", options{limit: limit})
	original := w.push(labtest.Image(t, "debian"))
	w.pull(original, "overlayfs")
	want := w.tree(original, "overlayfs")
	ref := w.convert(original)
	w.pull(ref, "ipcs")
	touched := w.touched(original)

	v, err := w.containerd.View(t.Context(), ref, "ipcs")
	w.must(err)
	for range 2 {
		got, err := tree.Read(v.Root)
		w.must(err)
		w.same(want, got, touched)
	}
	status, err := w.daemon.Status(t.Context())
	w.must(err)
	t.Logf("%d objects evicted, %d bytes used, mounts hold %d bytes", status.Store.Evicted, status.Store.Used, status.Store.Held)
	if status.Store.Evicted == 0 {
		t.Error("nothing was evicted")
	}
	w.must(v.Close(t.Context()))
	if out := w.run("c", ref, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
		t.Errorf("output %q", out)
	}
	log, err := os.ReadFile(w.daemon.Log())
	w.must(err)
	if strings.Contains(string(log), "the index of a layer is not kept") {
		t.Error("the indexes of the layers may be evicted")
	}
	w.damage()
	out, err := lab.Output(w.daemon.Command(t.Context(), "check"))
	w.must(err)
	if !strings.Contains(out, "1 damaged objects and blocks, removed") {
		t.Errorf("check says %s", out)
	}
	w.same(want, w.tree(ref, "ipcs"), touched)
}

// damage changes a byte of an object on the consumer.
func (w *world) damage() {
	w.t.Helper()
	objects, err := filepath.Glob(filepath.Join(w.daemon.Root(), "repo", "objects", "*", "*"))
	w.must(err)
	if len(objects) == 0 {
		w.t.Fatal("there are no objects")
	}
	data, err := os.ReadFile(objects[0])
	w.must(err)
	w.must(os.WriteFile(objects[0], append(data, 'x'), 0o444))
}
