//go:build linux

package snapshotter

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

func TestFileTable(t *testing.T) {
	x := manyFiles(1000)
	// A file of several leaves whose root block has the digest of a file with one leaf:
	// someone may well ship the bytes of a dag-pb node as a file.
	twin := x.Entries[5]
	twin.Name, twin.Size, twin.Extra = "twin", 1<<20+1, &layer.Extra{Leaves: strings.Repeat("l", 64)}
	again, empty, link, whiteout := x.Entries[5], x.Entries[5], x.Entries[5], x.Entries[5]
	again.Name, empty.Name, link.Name, whiteout.Name = "z-again", "z-empty", "z-link", "z-whiteout"
	empty.Size, link.Link, whiteout.Whiteout = 0, 5, true
	x.Entries = append(x.Entries, twin, again, empty, link, whiteout)
	table := newFileTable(x)
	if len(table.files) != 1001 {
		t.Errorf("%d files, want 1001", len(table.files))
	}
	for i := range x.Entries[:1052] {
		e := &x.Entries[i]
		if !e.Mode.IsRegular() {
			continue
		}
		k, ok := table.find(e.File().Cid)
		if !ok || table.file(k) != e.File() || table.path(k) != "/"+x.Path(i) {
			t.Fatalf("entry %d is %v with path %q (%t), want %v with path %q", i, table.file(k), table.path(k), ok, e.File(), x.Path(i))
		}
	}
	for _, c := range []cid.Cid{cid.Undef, ipfs.RawCid(strings.Repeat("\x00", 32)), ipfs.RawCid(strings.Repeat("\xff", 32)),
		cid.NewCidV1(cid.DagProtobuf, x.Entries[7].File().Cid.Hash())} {
		if _, ok := table.find(c); ok {
			t.Errorf("found %s", c)
		}
	}
}

func TestFileSet(t *testing.T) {
	a, b := manyFiles(10), manyFiles(20)
	rootA, rootB := ipfs.RawCid(fmt.Sprintf("%032d", 1)), ipfs.RawCid(fmt.Sprintf("%032d", 2))
	s := newFileSet()
	s.learn(rootA, a)
	if s.known(rootA) {
		t.Error("files of a layer that nobody uses are kept")
	}
	s.retain(rootA)
	s.retain(rootA)
	s.retain(rootB)
	s.learn(rootA, a)
	s.learn(rootB, b)
	count := 0
	distinct(s.tables([]cid.Cid{rootA, rootB}), func(ipfs.File) bool { count++; return true })
	if count != 20 {
		t.Errorf("%d distinct files, want 20", count)
	}
	s.release(rootB)
	s.release(rootB)
	last := b.Entries[len(b.Entries)-1].File().Cid
	claimed := func(c cid.Cid) bool {
		for range s.claims(c) {
			return true
		}
		return false
	}
	if claimed(last) || s.known(rootB) {
		t.Error("files of a layer that was removed are kept")
	}
	s.release(rootA)
	if !claimed(a.Entries[2].File().Cid) {
		t.Error("files of a layer in use are gone")
	}
}
