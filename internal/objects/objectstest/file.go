// Package objectstest makes files as the importer of the profile cuts them, for tests.
package objectstest

import (
	"math/rand"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Random returns n bytes that follow from the seed.
func Random(seed int64, n int) []byte {
	b := make([]byte, n)
	rand.New(rand.NewSource(seed)).Read(b)
	return b
}

// NewFile cuts data into leaves, and returns the file and its leaves in order.
func NewFile(t testing.TB, data []byte) (ipfs.File, []ipfs.Block) {
	t.Helper()
	return New(t, ipfs.LayoutFile, data)
}

// New is NewFile of a layout.
func New(t testing.TB, layout ipfs.Layout, data []byte) (ipfs.File, []ipfs.Block) {
	t.Helper()
	f := ipfs.File{Size: int64(len(data)), Layout: layout}
	var leaves []ipfs.Block
	var digests strings.Builder
	for i := range f.NumLeaves() {
		off := i * int(layout.LeafSize())
		b, err := ipfs.NewBlock(cid.Raw, data[off:off+f.LeafLen(i)])
		if err != nil {
			t.Fatal(err)
		}
		leaves = append(leaves, b)
		digests.Write(b.Cid.Hash()[2:])
	}
	f.Cid = leaves[0].Cid
	if len(leaves) > 1 {
		f.Leaves = digests.String()
		var err error
		if f.Cid, err = f.Build(nil); err != nil {
			t.Fatal(err)
		}
	}
	return f, leaves
}
