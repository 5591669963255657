package layer

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// TestSeeds wants every fuzz target to have a corpus: without one, it finds nothing, and
// says nothing either.
func TestSeeds(t *testing.T) {
	for _, target := range []string{"FuzzDecodeIndex", "FuzzRoot", "FuzzImage", "FuzzProfile", "FuzzTar", "FuzzTarSplit"} {
		seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", target))
		if err != nil || len(seeds) < 2 {
			t.Errorf("%s has %d seeds: %v", target, len(seeds), err)
		}
	}
}

// FuzzDecodeIndex: what is read is written as the same bytes, and whatever is read can be
// merged and built.
func FuzzDecodeIndex(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeIndex(b)
		encoded, eerr := newEncoded([]string{string(b)})
		if (err == nil) != (eerr == nil) {
			t.Fatalf("decoded: %v, left encoded: %v", err, eerr)
		}
		if err != nil {
			return
		}
		if err := compareIndexes(encoded, x); err != nil {
			t.Fatal(err)
		}
		again, err := EncodeIndex(x)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x", b, again)
		}
		if _, err := BuildRootfs(context.Background(), x, nil); err != nil {
			t.Fatal(err)
		}
		for _, layers := range [][]*Encoded{{encoded}, {encoded, encoded}} {
			for _, bottom := range []bool{true, false} {
				tree, err := Merge(layers, bottom)
				if err != nil {
					t.Fatal(err)
				}
				checkTree(t, flatten(tree))
			}
		}
	})
}

// checkTree checks that a tree is one: every node but the root is a child of one directory,
// and every list is sorted.
func checkTree(t *testing.T, tree *flatTree) {
	t.Helper()
	seen := make([]bool, len(tree.Nodes))
	for i, n := range tree.Nodes {
		if n.Inode < 0 || int(n.Inode) >= len(tree.Inodes) {
			t.Fatalf("node %d has inode %d", i, n.Inode)
		}
		if len(n.Children) > 0 && !tree.Inodes[n.Inode].Mode.IsDir() {
			t.Fatalf("node %d has children, and is no directory", i)
		}
		for k, c := range n.Children {
			if seen[c] || c <= int32(i) {
				t.Fatalf("node %d is a child twice", c)
			}
			seen[c] = true
			if k > 0 && tree.Nodes[n.Children[k-1]].Name >= tree.Nodes[c].Name {
				t.Fatalf("children of node %d are not sorted", i)
			}
		}
	}
	for i, ok := range seen {
		if ok != (i > 0) {
			t.Fatalf("node %d is a child: %t", i, ok)
		}
	}
}

// FuzzRoot: a layer root has one form.
func FuzzRoot(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		block, err := ipfs.NewBlock(cid.DagProtobuf, b)
		if err != nil {
			return
		}
		l, err := parseRoot(block)
		if err != nil {
			return
		}
		links, _, err := parseNode(string(b))
		if err != nil || !bytes.Equal(directoryNode(links), b) {
			t.Fatalf("%x is written as %x, %v", b, directoryNode(links), err)
		}
		if !l.Rootfs.Defined() || !l.IndexCid.Defined() || !l.TarSplit.Defined() || len(links) > 4 {
			t.Fatalf("accepted with %d links: %+v", len(links), l)
		}
	})
}

// FuzzImage: what is read is written, and read again as the same.
func FuzzImage(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeImage(b)
		if err != nil {
			return
		}
		again, err := EncodeImage(m)
		if err != nil {
			return // escapes may make it longer than the limit
		}
		n, err := DecodeImage(again)
		if err != nil || len(n.Layers) != len(m.Layers) || len(m.Layers) > 0 && !reflect.DeepEqual(n.Layers, m.Layers) {
			t.Fatalf("%s is written as %s, %v", b, again, err)
		}
	})
}

// FuzzProfile: a profile has one form.
func FuzzProfile(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := DecodeProfile(b)
		if err != nil {
			return
		}
		if again, err := EncodeProfile(files); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x, %v", b, again, err)
		}
	})
}

// FuzzTar: what Write takes, WriteTar gives back.
func FuzzTar(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMemory()
		// A few bytes can claim files that would take long.
		r, err := Write(context.Background(), m, bytes.NewReader(b), WriteOptions{MaxSparse: 4 << 20})
		if err != nil {
			return
		}
		l := checkLayer(t, m, r, b)
		checkTree(t, merge(t, true, l.Index))
	})
}

// FuzzTarSplit: a tar-split, given decompressed, makes an error or a tar, whatever is in it.
func FuzzTarSplit(f *testing.F) {
	l, m := convert(f, layertest.Tar(f, dir("d"), text("d/a", "123"), text("d/b", "1"), text("d/b", "2"), hard("e", "d/a")))
	if !l.Shadowed.Defined() {
		f.Fatal("nothing is shadowed")
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		zip := zipped(t, b)
		block, err := ipfs.NewBlock(cid.Raw, zip)
		if err != nil || len(zip) > ipfs.LeafSize {
			return
		}
		src := newMemory()
		for c, data := range m.blocks {
			src.blocks[c] = data
		}
		src.blocks[block.Cid] = block.Data
		other := *l
		other.TarSplit = block.Cid
		if err := other.WriteTar(context.Background(), src, io.Discard); err == nil {
			table := &Tar{layer: &other, index: other.Index}
			if err := table.readTable(t.Context(), bytes.NewReader(zip)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
