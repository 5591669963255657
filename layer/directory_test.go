package layer_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// rawLink is a link to a raw block.
func rawLink(t testing.TB, name, text string) layer.Link {
	t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return layer.Link{Name: name, Cid: b.Cid, Size: uint64(len(text))}
}

// TestDirectory makes a directory, as boxo makes it, and reads it.
func TestDirectory(t *testing.T) {
	links := []layer.Link{rawLink(t, "b", "two"), rawLink(t, "a", "one"), rawLink(t, "empty", "")}
	got, err := layer.NewDirectory(links)
	if err != nil {
		t.Fatal(err)
	}
	want := unixfs.EmptyDirNode()
	if err := want.SetCidBuilder(merkledag.V1CidPrefix()); err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if err := want.AddRawLink(l.Name, &ipld.Link{Name: l.Name, Cid: l.Cid, Size: l.Size}); err != nil {
			t.Fatal(err)
		}
	}
	if !got.Cid.Equals(want.Cid()) || !bytes.Equal(got.Data, want.RawData()) {
		t.Errorf("%s, boxo makes %s", got.Cid, want.Cid())
	}
	read, err := layer.ReadDirectory(got)
	slices.SortFunc(links, func(a, b layer.Link) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	if err != nil || !slices.Equal(read, links) {
		t.Errorf("%v, %v, want %v", read, err, links)
	}
	above, err := layer.DagSize(got)
	if size, serr := want.Size(); err != nil || serr != nil || above != size {
		t.Errorf("a link to it has size %d, boxo says %d: %v, %v", above, size, err, serr)
	}
}

// TestNoDirectory refuses what is none, or not in the one form.
func TestNoDirectory(t *testing.T) {
	a, b := rawLink(t, "a", "one"), rawLink(t, "b", "two")
	for name, links := range map[string][]layer.Link{"twice": {a, b, a}, "path": {rawLink(t, "a/b", "")}, "no name": {rawLink(t, "", "")}} {
		if got, err := layer.NewDirectory(links); err == nil {
			t.Errorf("%s: made %s", name, got.Cid)
		}
	}
	var many []layer.Link
	for i := range 4096 {
		many = append(many, rawLink(t, "name of an entry of the directory "+string(rune('a'+i%26))+string(rune(0x100+i)), ""))
	}
	if _, err := layer.NewDirectory(many); !errors.Is(err, layer.ErrTooLarge) {
		t.Errorf("%d links: %v", len(many), err)
	}
	good, err := layer.NewDirectory([]layer.Link{a, b})
	if err != nil {
		t.Fatal(err)
	}
	half := len(good.Data) - 4
	swapped := slices.Concat(good.Data[half/2:half], good.Data[:half/2], good.Data[half:])
	for name, data := range map[string][]byte{
		"cut": good.Data[:len(good.Data)-1], "more": append(bytes.Clone(good.Data), 0), "not sorted": swapped,
		"no data": good.Data[:half], "a file": {0x0a, 2, 8, 2}, "sharded": {0x0a, 2, 8, 5},
		"twice": slices.Concat(good.Data[:half/2], good.Data), "nothing": nil, "large": make([]byte, layer.MaxDirectory+1),
	} {
		block, err := ipfs.NewBlock(cid.DagProtobuf, data)
		if err != nil {
			t.Fatal(err)
		}
		if links, err := layer.ReadDirectory(block); !errors.Is(err, layer.ErrDirectory) {
			t.Errorf("%s is %v, %v", name, links, err)
		}
	}
	raw, err := ipfs.NewBlock(cid.Raw, good.Data)
	if err != nil {
		t.Fatal(err)
	}
	if links, err := layer.ReadDirectory(raw); !errors.Is(err, layer.ErrDirectory) {
		t.Errorf("a raw block is %v, %v", links, err)
	}
}

// FuzzDirectory: what is read is written as the same bytes.
func FuzzDirectory(f *testing.F) {
	for _, links := range [][]layer.Link{nil, {rawLink(f, "a", "one")}, {rawLink(f, "a", "one"), rawLink(f, "b", "two")}} {
		b, err := layer.NewDirectory(links)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b.Data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ipfs.NewBlock(cid.DagProtobuf, data)
		if err != nil {
			return
		}
		links, err := layer.ReadDirectory(b)
		if err != nil {
			return
		}
		again, err := layer.NewDirectory(links)
		if err != nil && slices.ContainsFunc(links, func(l layer.Link) bool { return l.Name == "" || bytes.ContainsRune([]byte(l.Name), '/') }) {
			return // names that nobody asks for
		}
		if err != nil || !bytes.Equal(again.Data, data) {
			t.Fatalf("%x is written as %x, %v", data, again.Data, err)
		}
	})
}
