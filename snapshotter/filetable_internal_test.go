//go:build linux

package snapshotter

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
)

func TestFileTable(t *testing.T) {
	x := manyFiles(1000)
	// A file of several leaves whose root block has the digest of a file with one leaf:
	// someone may well ship the bytes of a dag-pb node as a file.
	several := severalLeaves(t)
	twin := layer.Entry{Name: "z-twin", Digest: several.Digest, Size: 100, Mode: 0o644, Link: -1}
	again, empty := x.Entries[5], x.Entries[5]
	again.Name, again.Parent = "z-again", 0
	empty.Name, empty.Parent, empty.Size = "z-empty", 0, 0
	link := layer.Entry{Name: "z-link", Link: 5}
	whiteout := layer.Entry{Name: "z-whiteout", Whiteout: true, Link: -1}
	x.Entries = append(x.Entries, again, empty, link, several, twin, whiteout)
	table := tableOf(t, x)
	if len(table.files) != 1002 {
		t.Errorf("%d files, want 1002", len(table.files))
	}
	for i := range x.Entries {
		e := &x.Entries[i]
		if !hasContent(e) || e.Name == again.Name {
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

// severalLeaves is the entry of a file that has two.
func severalLeaves(t *testing.T) layer.Entry {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	body := make([]byte, ipfs.LeafSize+1)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "z-several", Mode: 0o644, Size: int64(len(body))})
	if err := errors.Join(err, second(w.Write(body)), w.Close()); err != nil {
		t.Fatal(err)
	}
	node := ipfstest.NewMemory()
	result, err := layer.Write(t.Context(), node, &b, layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, index, err := layer.OpenEncoded(t.Context(), node, result.Root.Cid)
	if err != nil {
		t.Fatal(err)
	}
	return index.At(1)
}

// TestDistinct goes through tables side by side, of which several have the same files.
func TestDistinct(t *testing.T) {
	all := manyFiles(60)
	some := &layer.Index{Entries: append([]layer.Entry{all.Entries[0]}, all.Entries[22:43]...)}
	for i := range some.Entries[1:] {
		some.Entries[i+1].Parent = min(int32(i), 1)
	}
	tables := []*fileTable{tableOf(t, some), tableOf(t, all), tableOf(t, some), tableOf(t, manyFiles(0))}
	seen := make(map[cid.Cid]int)
	distinct(tables, func(f ipfs.File) bool { seen[f.Cid]++; return true })
	for c, n := range seen {
		if _, ok := tables[1].find(c); !ok || n != 1 {
			t.Errorf("%s came %d times", c, n)
		}
	}
	if len(seen) != 60 {
		t.Errorf("%d files, want 60", len(seen))
	}
	n := 0
	if distinct(tables, func(ipfs.File) bool { n++; return n < 3 }); n != 3 {
		t.Errorf("went on to file %d after the end", n)
	}
}

func TestFileSet(t *testing.T) {
	a, b := manyFiles(10), manyFiles(20)
	learn := func(s *fileSet, root cid.Cid, x *layer.Index) {
		if _, _, err := s.learn(root, encoded(t, x)); err != nil {
			t.Fatal(err)
		}
	}
	rootA, rootB := ipfs.RawCid(fmt.Sprintf("%032d", 1)), ipfs.RawCid(fmt.Sprintf("%032d", 2))
	s := newFileSet()
	learn(s, rootA, a)
	if s.known(rootA) {
		t.Error("files of a layer that nobody uses are kept")
	}
	s.retain(rootA)
	s.retain(rootA)
	s.retain(rootB)
	learn(s, rootA, a)
	learn(s, rootB, b)
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
