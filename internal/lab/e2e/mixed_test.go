package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tree"
)

// TestOrdinaryImage runs an image that was never converted with --snapshotter ipcs.
func TestOrdinaryImage(t *testing.T) {
	layout := labtest.Image(t, "small")
	w := newWorld(t, "ordinary", 0)
	ref := w.push(layout)
	w.pull(ref, "overlayfs")
	w.pull(ref, "ipcs")
	w.same(w.tree(ref, "overlayfs"), w.tree(ref, "ipcs"), w.touched(ref))
	if out := w.run("ordinary", ref, "ipcs", "sh", "-c", "echo 6 > /n && cat /n && rm /n && rm -r /usr/share/doc"); out != "6\n" {
		t.Errorf("output %q", out)
	}
}

// layered is an image of three layers, each of which changes what is below.
func layered(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layered")
	_, err := images.Write(t.Context(), dir, images.Image{Layers: []images.Layer{
		{Tar: images.Tar(func(t *images.Tarball) {
			t.Dir("d", 0o755)
			t.Dir("d/sub", 0o755)
			t.Dir("hidden", 0o755)
			for _, f := range []string{"one", "d/one", "d/sub/one", "d/gone-above", "hidden/one", "linked"} {
				t.File(f, 0o644, "one "+f)
			}
			t.Link("linked-2", "linked")
		})},
		{Tar: images.Tar(func(t *images.Tarball) {
			t.Dir("hidden", 0o700)
			t.Opaque("hidden")
			t.Whiteout("d/gone-above")
			for _, f := range []string{"two", "d/two", "d/sub/two", "d/replaced-above", "hidden/two"} {
				t.File(f, 0o644, "two "+f)
			}
		})},
		{Tar: images.Tar(func(t *images.Tarball) {
			t.Dir("d", 0o711, images.Owner(3, 3))
			for _, f := range []string{"three", "d/three", "d/replaced-above", "hidden/three"} {
				t.File(f, 0o600, "three "+f)
			}
			t.Whiteout("two")
		})},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestMixedChains mixes layers of an image and of its conversion, in every way. The
// tree must be that of overlayfs, and so must be what is left when a container has
// changed it.
func TestMixedChains(t *testing.T) {
	layout := layered(t)
	w := newWorld(t, "mixed", 0)
	original := w.push(layout)
	converted := w.convert(original)
	w.pull(original, "overlayfs")
	touched := w.touched(original)
	want := w.tree(original, "overlayfs")
	wantChanged := w.changed(original, "overlayfs")
	a, err := images.Get(t.Context(), original, w.store.HTTPClient())
	w.must(err)
	b, err := images.Get(t.Context(), converted, w.store.HTTPClient())
	w.must(err)
	for _, pattern := range []string{"bbb", "abb", "bab", "bba", "aab", "aba", "baa"} {
		t.Run(pattern, func(t *testing.T) {
			w := w.with(t)
			mixed, err := images.Mix(pattern, a, b)
			w.must(err)
			ref := strings.TrimSuffix(original, "latest") + pattern
			w.must(mixed.Put(t.Context(), ref, w.store.HTTPClient()))
			w.pull(ref, "ipcs")
			w.same(want, w.tree(ref, "ipcs"), touched)
			w.sameButTimes(wantChanged, w.changed(ref, "ipcs"))
		})
	}
}

// sameButTimes compares trees that were changed at different times.
func (w *world) sameButTimes(want, got []tree.Entry) {
	w.t.Helper()
	for _, entries := range [][]tree.Entry{want, got} {
		for i := range entries {
			entries[i].Mtime = unix.Timespec{}
		}
	}
	w.same(want, got, nil)
}

// changed mounts an image as a container does, changes something of every layer in
// every way, and reads what is left.
func (w *world) changed(ref, snapshotter string) []tree.Entry {
	w.t.Helper()
	v, err := w.containerd.Writable(w.t.Context(), ref, snapshotter)
	w.must(err)
	defer func() { w.must(v.Close(w.t.Context())) }()
	at := func(name string) string { return filepath.Join(v.Root, name) }
	for _, f := range []string{"one", "d/sub/two", "three"} {
		w.must(os.Chmod(at(f), 0o4701))
	}
	for _, f := range []string{"d/one", "d/two", "d/three"} {
		w.must(os.Rename(at(f), at(f+"-renamed")))
	}
	for _, f := range []string{"hidden/two", "d/replaced-above"} {
		w.must(os.Remove(at(f)))
	}
	w.must(os.Chown(at("d/sub"), 11, 12))
	w.must(os.WriteFile(at("d/sub/one"), []byte("written over"), 0o644))
	f, err := os.OpenFile(at("linked"), os.O_APPEND|os.O_WRONLY, 0)
	w.must(err)
	_, err = f.WriteString(", and more")
	w.must(err)
	w.must(f.Close())
	w.must(os.Symlink("one", at("new-link")))
	w.must(os.RemoveAll(at("hidden")))
	w.must(os.Mkdir(at("hidden"), 0o755))
	entries, err := tree.Read(v.Root)
	w.must(err)
	return entries
}
