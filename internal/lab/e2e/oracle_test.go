package e2e

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tree"
)

// shownDifferences is how many lines of a difference a failed test shows.
const shownDifferences = 40

// TestOracle finds that the tree a container sees through ipcs equals the tree that
// stock overlayfs shows of the original.
func TestOracle(t *testing.T) {
	layouts := append([]string{labtest.Image(t, "debian"), labtest.Image(t, "nasty")}, external(t)...)
	w := newWorld(t, "oracle", 0)
	for _, layout := range layouts {
		t.Run(filepath.Base(layout), func(t *testing.T) {
			w := w.with(t)
			original := w.push(layout)
			w.pull(original, "overlayfs")
			want := w.tree(original, "overlayfs")
			converted := w.convert(original)
			w.pull(converted, "ipcs")
			got := w.tree(converted, "ipcs")
			t.Logf("%d paths", len(want))
			w.same(want, got, w.touched(original))
		})
	}
}

// with returns the world for a subtest.
func (w *world) with(t *testing.T) *world {
	sub := *w
	sub.t = t
	return &sub
}

// same fails the test if the trees differ.
func (w *world) same(want, got []tree.Entry, touched tree.Touched) {
	w.t.Helper()
	diff := tree.Diff(want, got, touched.Has)
	if len(diff) == 0 {
		return
	}
	w.t.Errorf("%d differences between overlayfs (want) and ipcs (have):\n%s", len(diff),
		strings.Join(diff[:min(len(diff), shownDifferences)], "\n"))
}

// touched reads the layers of an image that was pulled.
func (w *world) touched(ref string) tree.Touched {
	w.t.Helper()
	ctx := w.containerd.Context(w.t.Context())
	img, err := w.containerd.Client.GetImage(ctx, ref)
	w.must(err)
	manifest, err := images.Manifest(ctx, img.ContentStore(), img.Target(), platforms.Default())
	w.must(err)
	touched := tree.Touched{}
	for _, l := range manifest.Layers {
		w.must(readLayer(ctx, img, l, touched))
	}
	return touched
}

func readLayer(ctx context.Context, img client.Image, desc ocispec.Descriptor, touched tree.Touched) error {
	ra, err := img.ContentStore().ReaderAt(ctx, desc)
	if err != nil {
		return err
	}
	defer ra.Close()
	var r io.Reader = io.NewSectionReader(ra, 0, ra.Size())
	switch {
	case strings.HasSuffix(desc.MediaType, "gzip"):
		if r, err = gzip.NewReader(r); err != nil {
			return err
		}
	case strings.HasSuffix(desc.MediaType, "zstd"):
		z, err := zstd.NewReader(r)
		if err != nil {
			return err
		}
		defer z.Close()
		r = z
	}
	return touched.Layer(r)
}

// TestStockUnpacksNasty keeps the image honest: nothing in it is beyond stock
// containerd, or the oracle would have nothing to say of it.
func TestStockUnpacksNasty(t *testing.T) {
	if _, err := os.Stat(labtest.Image(t, "nasty")); err != nil {
		t.Fatal(err)
	}
	l := labtest.Open(t, "nasty", 1000)
	store, node := labtest.Machine(t, l, "registry"), labtest.Machine(t, l, "node")
	w := &world{t: t, lab: l, store: store, consume: node}
	var err error
	w.registry, err = store.StartRegistry(t.Context())
	w.must(err)
	w.containerd, err = node.StartContainerd(t.Context(), lab.ContainerdOptions{})
	w.must(err)
	ref := w.push(labtest.Image(t, "nasty"))
	w.pull(ref, "overlayfs")
	first := w.tree(ref, "overlayfs")
	if len(first) < 30_000 {
		t.Errorf("%d paths", len(first))
	}
	w.same(first, w.tree(ref, "overlayfs"), w.touched(ref))
	w.must(w.containerd.Stop(context.Background()))
}
