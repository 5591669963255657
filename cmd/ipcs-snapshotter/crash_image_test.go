package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/kubo"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// crashImage is an image of some layers with files of all sizes.
type crashImage struct {
	layers []crashLayer
	files  map[string][sha256.Size]byte
	data   []ipfs.File
}

type crashLayer struct {
	labels map[string]string
	chain  string
}

// makeCrashImage writes an image to a node. A file of it is in all images.
func makeCrashImage(t testing.TB, node ipfs.Node, seed string) *crashImage {
	t.Helper()
	im := &crashImage{files: make(map[string][sha256.Size]byte)}
	source := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	var chain []digest.Digest
	for i := range 3 {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for j, size := range []int{100, 5000, 70_000, 300_000, ipfs.LeafSize + 1, 2*ipfs.LeafSize + 7} {
			data := make([]byte, size)
			_, _ = source.Read(data) // it never fails
			if j == 2 {
				data = bytes.Repeat([]byte("shared\n"), 1000+i)
			}
			name := fmt.Sprintf("%d-%d", i, j)
			err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))})
			if _, werr := w.Write(data); err != nil || werr != nil {
				t.Fatal(err, werr)
			}
			im.files[name] = sha256.Sum256(data)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		made, err := layer.Write(t.Context(), node, &b, layer.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := node.Pin(t.Context(), ipfs.Pin{Root: made.Root.Cid, Name: seed}); err != nil {
			t.Fatal(err)
		}
		opened, err := layer.Open(t.Context(), node, made.Root.Cid)
		if err != nil {
			t.Fatal(err)
		}
		for j := range opened.Index.Entries {
			if e := &opened.Index.Entries[j]; e.Mode.IsRegular() {
				im.data = append(im.data, e.File())
			}
		}
		id, err := mediatype.LayerDigest(made.Root.Cid)
		if err != nil {
			t.Fatal(err)
		}
		labels := map[string]string{mediatype.AnnotationRoot: made.Root.Cid.String(), snapshots.LabelSnapshotDiffID: id.String()}
		if len(chain) > 0 {
			labels["containerd.io/snapshot/parent-chain-id"] = identity.ChainID(chain).String()
		}
		chain = append(chain, id)
		labels[snapshots.LabelSnapshotRef] = identity.ChainID(chain).String()
		im.layers = append(im.layers, crashLayer{labels, labels[snapshots.LabelSnapshotRef]})
	}
	return im
}

// checkPins finds layers that were committed whole.
func (w *crashWorker) checkPins() {
	w.t.Helper()
	node, err := kubo.New(w.daemon.cfg.apiSocket())
	if err != nil {
		w.t.Fatal(err)
	}
	defer node.Close()
	for id := range w.pins {
		d, err := digest.Parse(id)
		if err != nil {
			w.t.Fatal(err)
		}
		root, err := mediatype.RootCid(d)
		if err != nil {
			w.t.Fatal(err)
		}
		l, err := layer.Open(w.t.Context(), node, root)
		if err != nil {
			w.t.Errorf("layer %s was committed: %v", id, err)
			continue
		}
		for i := range l.Index.Entries {
			f := l.Index.Entries[i].File()
			if !l.Index.Entries[i].Mode.IsRegular() {
				continue
			}
			for n := range f.NumLeaves() {
				if ok, err := node.Has(w.t.Context(), f.Leaf(n)); err != nil || !ok {
					w.t.Errorf("layer %s was committed and lacks a leaf of %s: %v", id, f.Cid, err)
				}
			}
		}
	}
}

// fetchedObjects counts the files of the images that are on disk.
func (w *crashWorker) fetchedObjects(root string) (n int) {
	for _, im := range w.images {
		for _, f := range im.data {
			_, err := os.Stat(filepath.Join(root, "repo", "objects", objects.Path(f.Cid)))
			if !errors.Is(err, fs.ErrNotExist) {
				n++
			}
		}
	}
	return n
}
