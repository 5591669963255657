package ipfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"testing"

	chunk "github.com/ipfs/boxo/chunker"
	mdutils "github.com/ipfs/boxo/ipld/merkledag/test"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/go-cid"
	format "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

// TestBuildMatchesImporter holds our builder to boxo's importer, the reference
// for both layouts.
func TestBuildMatchesImporter(t *testing.T) {
	for _, size := range []int64{ipfs.LeafSize + 1, 2 * ipfs.LeafSize, 5*ipfs.LeafSize + 17, 1024 * ipfs.LeafSize, 1024*ipfs.LeafSize + 1, 1026*ipfs.LeafSize + 5} {
		testBuild(t, ipfs.LayoutFile, ipfs.Width, size)
	}
	const chunk = 262144
	for _, size := range []int64{chunk + 1, 2 * chunk, 174 * chunk, 174*chunk + 1, 400*chunk + 5} {
		testBuild(t, ipfs.LayoutBlob, 174, size)
	}
}

func testBuild(t *testing.T, layout ipfs.Layout, width int, size int64) {
	t.Run(fmt.Sprint(layout, "/", size), func(t *testing.T) {
		if testing.Short() && size > 200*layout.LeafSize() {
			t.Skip("a gigabyte is hashed only without -short")
		}
		f, want, dag := importFile(t, layout, width, size)
		if got, err := f.Build(nil); err != nil || !got.Equals(want) {
			t.Fatalf("Build = %v, %v; importer made %v", got, err, want)
		}
		f.Cid = want
		if err := f.Check(); err != nil {
			t.Fatal(err)
		}
		if got, err := ipfs.LoadFile(t.Context(), fetcher{dag}, want, size, layout); err != nil || got != f {
			t.Fatalf("LoadFile finds other leaves: %v", err)
		}
		for _, wrong := range []int64{size - 1, size + 1, size + layout.LeafSize(), size / 2, 1} {
			if _, err := ipfs.LoadFile(t.Context(), fetcher{dag}, want, wrong, layout); !errors.Is(err, ipfs.ErrFile) {
				t.Errorf("LoadFile of %d bytes: %v", wrong, err)
			}
		}
		bad := []byte(f.Leaves)
		bad[40] ^= 1
		f.Leaves = string(bad)
		if err := f.Check(); err == nil {
			t.Fatal("a changed leaf hash was accepted")
		}
	})
}

// fetcher gets blocks from a DAG service of boxo's.
type fetcher struct{ format.DAGService }

func (f fetcher) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		nd, err := f.Get(ctx, c)
		if err != nil {
			return err
		}
		if err := fn(ipfs.Block{Cid: c, Data: nd.RawData()}); err != nil {
			return err
		}
	}
	return nil
}

func importFile(t *testing.T, layout ipfs.Layout, width int, size int64) (ipfs.File, cid.Cid, format.DAGService) {
	t.Helper()
	block := make([]byte, layout.LeafSize())
	rand.New(rand.NewSource(1)).Read(block)
	r := &repeat{block: block, left: size}
	dserv := mdutils.Mock()
	params := helpers.DagBuilderParams{Maxlinks: width, RawLeaves: true, Dagserv: dserv,
		CidBuilder: cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256}}
	db, err := params.New(chunk.NewSizeSplitter(r, layout.LeafSize()))
	if err != nil {
		t.Fatal(err)
	}
	nd, err := balanced.Layout(db)
	if err != nil {
		t.Fatal(err)
	}
	var leaves bytes.Buffer
	for left := size; left > 0; left -= layout.LeafSize() {
		b, err := ipfs.NewBlock(cid.Raw, block[:min(left, layout.LeafSize())])
		if err != nil {
			t.Fatal(err)
		}
		leaves.Write(b.Cid.Hash()[2:])
	}
	f := ipfs.File{Cid: nd.Cid(), Size: size, Layout: layout, Leaves: leaves.String()}
	want, err := nd.Size()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := f.DagSize(); err != nil || got != want {
		t.Fatalf("DagSize = %d, %v; importer says %d", got, err, want)
	}
	return f, nd.Cid(), dserv
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
