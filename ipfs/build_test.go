package ipfs_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"testing"

	chunk "github.com/ipfs/boxo/chunker"
	mdutils "github.com/ipfs/boxo/ipld/merkledag/test"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

// TestBuildFileMatchesImporter holds our builder to boxo's importer, the reference
// for the profile.
func TestBuildFileMatchesImporter(t *testing.T) {
	for _, size := range []int64{ipfs.LeafSize + 1, 2 * ipfs.LeafSize, 5*ipfs.LeafSize + 17, 1024 * ipfs.LeafSize, 1024*ipfs.LeafSize + 1, 1026*ipfs.LeafSize + 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			if testing.Short() && size > 100*ipfs.LeafSize {
				t.Skip("a gigabyte is hashed only without -short")
			}
			f, want := importFile(t, size)
			if got, err := ipfs.BuildFile(size, f.Leaves, nil); err != nil || !got.Equals(want) {
				t.Fatalf("BuildFile = %v, %v; importer made %v", got, err, want)
			}
			f.Cid = want
			if err := f.Check(); err != nil {
				t.Fatal(err)
			}
			bad := []byte(f.Leaves)
			bad[40] ^= 1
			f.Leaves = string(bad)
			if err := f.Check(); err == nil {
				t.Fatal("a changed leaf hash was accepted")
			}
		})
	}
}

func importFile(t *testing.T, size int64) (ipfs.File, cid.Cid) {
	t.Helper()
	block := make([]byte, ipfs.LeafSize)
	rand.New(rand.NewSource(1)).Read(block)
	r := &repeat{block: block, left: size}
	dserv := mdutils.Mock()
	params := helpers.DagBuilderParams{Maxlinks: ipfs.Width, RawLeaves: true, Dagserv: dserv,
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256}}
	db, err := params.New(chunk.NewSizeSplitter(r, ipfs.LeafSize))
	if err != nil {
		t.Fatal(err)
	}
	nd, err := balanced.Layout(db)
	if err != nil {
		t.Fatal(err)
	}
	var leaves bytes.Buffer
	for left := size; left > 0; left -= ipfs.LeafSize {
		b, err := ipfs.NewBlock(cid.Raw, block[:min(left, ipfs.LeafSize)])
		if err != nil {
			t.Fatal(err)
		}
		leaves.Write(b.Cid.Hash()[2:])
	}
	f := ipfs.File{Cid: nd.Cid(), Size: size, Leaves: leaves.String()}
	want, err := nd.Size()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.DagSize(); err != nil || got != want {
		t.Fatalf("DagSize = %d, %v; importer says %d", got, err, want)
	}
	return f, nd.Cid()
}

// repeat reads as one block over and over, so that a file of 1,026 leaves costs no disk.
type repeat struct {
	block []byte
	left  int64
	off   int
}

func (r *repeat) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.block[r.off:])
	n = int(min(int64(n), r.left))
	r.off = (r.off + n) % len(r.block)
	r.left -= int64(n)
	return n, nil
}
