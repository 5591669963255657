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
	original := w.push(labtest.Image(t, "small"))
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

// TestRemoved removes one of two images that share a layer: what only it had goes, with a limit
// of the store and without one.
func TestRemoved(t *testing.T) {
	for name, limit := range map[string]int64{"limited": 8 << 30, "unlimited": 0} {
		t.Run(name, func(t *testing.T) { testRemoved(t, limit) })
	}
}

func testRemoved(t *testing.T, limit int64) {
	w := newWorldWith(t, "removed", options{limit: limit})
	var refs []string
	for _, name := range []string{"small-base", "small"} { // which is the first and Python
		ref := w.convert(w.push(labtest.Image(t, name)))
		w.pull(ref, "ipcs")
		w.tree(ref, "ipcs")
		refs = append(refs, ref)
	}
	want := w.tree(refs[0], "ipcs")
	before, err := w.daemon.Status(t.Context())
	w.must(err)
	remove := func(ref string) {
		_, err := lab.Output(w.containerd.Ctr(t.Context(), "image", "rm", "--sync", ref))
		w.must(err)
	}
	remove(refs[1])
	after := w.until("files go", func(s *lab.Status) bool { return s.Store.Evicted > 0 })
	fetched := after.Fetch.Bytes
	w.same(want, w.tree(refs[0], "ipcs"), nil)
	after, err = w.daemon.Status(t.Context())
	w.must(err)
	if after.Store.Objects >= before.Store.Objects || after.Fetch.Bytes != fetched {
		t.Errorf("%d objects, %d before; %d bytes were fetched again", after.Store.Objects, before.Store.Objects, after.Fetch.Bytes-fetched)
	}
	t.Logf("%d objects of %d bytes with two images, %d of %d with one", before.Store.Objects, before.Store.Used, after.Store.Objects, after.Store.Used)
	remove(refs[0])
	left := w.until("all files go", func(s *lab.Status) bool { return s.Store.Objects < 20 })
	t.Logf("%d objects of %d bytes without", left.Store.Objects, left.Store.Used)
}

// damage changes a byte of an object on the consumer.
func (w *world) damage() {
	w.t.Helper()
	objects, err := filepath.Glob(filepath.Join(w.daemon.Root(), "repo", "objects", "*", "*", "*"))
	w.must(err)
	if len(objects) == 0 {
		w.t.Fatal("there are no objects")
	}
	data, err := os.ReadFile(objects[0])
	w.must(err)
	w.must(os.WriteFile(objects[0], append(data, 'x'), 0o444))
}
