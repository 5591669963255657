package ipfs_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// TestLinks compares with boxo's reader.
func TestLinks(t *testing.T) {
	var leaves strings.Builder
	for i := range 1500 {
		b, err := ipfs.NewBlock(cid.Raw, []byte{byte(i), byte(i >> 8)})
		if err != nil {
			t.Fatal(err)
		}
		leaves.Write(b.Cid.Hash()[2:])
	}
	nodes := 0
	_, err := ipfs.BuildFile(1500*ipfs.LeafSize, leaves.String(), func(b ipfs.Block) error {
		nodes++
		nd, err := merkledag.DecodeProtobuf(b.Data)
		if err != nil {
			return err
		}
		var want []cid.Cid
		for _, l := range nd.Links() {
			want = append(want, l.Cid)
		}
		got, err := ipfs.Links(b)
		if err != nil || !slices.EqualFunc(got, want, cid.Cid.Equals) {
			t.Errorf("node %d: %d links, %v; want %d", nodes, len(got), err, len(want))
		}
		return nil
	})
	if err != nil || nodes != 3 {
		t.Fatalf("%d nodes, %v", nodes, err)
	}
}

func TestLinksOfWhatIsNoNode(t *testing.T) {
	for _, codec := range []uint64{cid.Raw, cid.DagCBOR} {
		b, err := ipfs.NewBlock(codec, []byte("\x12\x02\x0a"))
		if err != nil {
			t.Fatal(err)
		}
		if links, err := ipfs.Links(b); err != nil || len(links) != 0 {
			t.Errorf("codec %x: %v, %v", codec, links, err)
		}
	}
	for name, data := range map[string]string{
		"text": "a text", "short link": "\x12\x09\x0a", "short hash": "\x12\x02\x0a\x09", "no CID": "\x12\x04\x0a\x02\x01\x55",
	} {
		b, err := ipfs.NewBlock(cid.DagProtobuf, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		if links, err := ipfs.Links(b); !errors.Is(err, ipfs.ErrNode) {
			t.Errorf("%s: %v, %v", name, links, err)
		}
	}
}

// FuzzLinks: whatever boxo reads as a node, we read with the same links, and nothing panics.
func FuzzLinks(f *testing.F) {
	f.Add([]byte("\x0a\x02\x08\x01"))
	f.Add([]byte("\x12\x2a\x0a\x24\x01\x70\x12\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\x12\x00\x18\x05\x0a\x02\x08\x01"))
	f.Add([]byte("\x12\x04\x0a\x02\x01\x55"))
	f.Add([]byte("\x0a\x05\x08\x02\x18\x80\x40"))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ipfs.NewBlock(cid.DagProtobuf, data)
		if err != nil {
			t.Skip(err)
		}
		links, err := ipfs.Links(b)
		nd, werr := merkledag.DecodeProtobuf(data)
		if werr != nil {
			return // we may be more lenient: what is pinned keeps more then
		}
		if err != nil {
			t.Fatalf("boxo reads %d links, we say %v", len(nd.Links()), err)
		}
		got := make(map[cid.Cid]bool)
		for _, c := range links {
			got[c] = true
		}
		for _, l := range nd.Links() {
			if !got[l.Cid] {
				t.Fatalf("link to %s is missing", l.Cid)
			}
		}
		size, err := ipfs.FileSize(b)
		if fs, ferr := unixfs.FSNodeFromBytes(nd.Data()); err == nil && (ferr != nil || fs.Type() == unixfs.TFile && fs.FileSize() != uint64(size)) {
			t.Fatalf("we say that it is a file of %d bytes, boxo says %v, %v", size, fs, ferr)
		}
	})
}
