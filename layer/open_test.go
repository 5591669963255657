package layer

import (
	"context"
	"fmt"
	"math/rand"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// TestOpenLarge opens a layer whose index has several leaves.
func TestOpenLarge(t *testing.T) {
	const n = 60_000
	root, m := largeLayer(t, n)
	got, err := OpenBlock(context.Background(), m, root)
	if err != nil {
		t.Fatal(err)
	}
	if got.IndexCid.Type() != cid.DagProtobuf || len(got.Index.Entries) != n {
		t.Errorf("index %s with %d entries", got.IndexCid, len(got.Index.Entries))
	}
}

// largeLayer makes a layer of an index with n entries, and of no files. Digests are random:
// half of an index are hashes, and do not compress.
func largeLayer(t testing.TB, n int) (root ipfs.Block, m *memory) {
	t.Helper()
	l, m := convert(t, layertest.Tar(t))
	x := syntheticIndex(n)
	r := rand.New(rand.NewSource(1))
	for i := range x.Entries {
		if e := &x.Entries[i]; e.Mode.IsRegular() {
			digest := make([]byte, sumSize)
			r.Read(digest)
			e.Digest = string(digest)
		}
	}
	raw, err := EncodeIndex(x)
	if err != nil {
		t.Fatal(err)
	}
	return putLayer(t, m, l, raw), m
}

// putIndexed puts a file with the nodes above its leaves.
func putIndexed(t testing.TB, m *memory, data []byte) cid.Cid {
	t.Helper()
	c := putFile(t, m, data)
	var leaves []byte
	for off := 0; off < len(data); off += ipfs.LeafSize {
		b, err := ipfs.NewBlock(cid.Raw, data[off:min(off+ipfs.LeafSize, len(data))])
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, sumOf(b.Cid)...)
	}
	root, err := ipfs.BuildFile(int64(len(data)), string(leaves), func(b ipfs.Block) error { return m.Put(context.Background(), b) })
	if err != nil || !root.Equals(c) {
		t.Fatalf("%s, %s, %v", root, c, err)
	}
	return c
}

// TestManyInOneDirectory takes a directory of 30,000 entries, which rootfs shards.
func TestManyInOneDirectory(t *testing.T) {
	files := []file{dir("d")}
	for i := range 30_000 {
		files = append(files, text(fmt.Sprintf("d/file %d", i), fmt.Sprint(i%100)))
	}
	l, _ := convert(t, layertest.Tar(t, files...))
	if len(l.Index.Entries) != 30_002 {
		t.Errorf("%d entries", len(l.Index.Entries))
	}
}
