//go:build linux

package snapshotter

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	distinct(tables, nil, func(f ipfs.File) bool { seen[f.Cid]++; return true })
	for c, n := range seen {
		if _, ok := tables[1].find(c); !ok || n != 1 {
			t.Errorf("%s came %d times", c, n)
		}
	}
	if len(seen) != 60 {
		t.Errorf("%d files, want 60", len(seen))
	}
	n := 0
	if distinct(tables, nil, func(ipfs.File) bool { n++; return n < 3 }); n != 3 {
		t.Errorf("went on to file %d after the end", n)
	}
}

func TestFileSet(t *testing.T) {
	a, b := manyFiles(10), manyFiles(20)
	learn := func(s *fileSet, root cid.Cid, x *layer.Index) {
		if _, _, err := s.learn(root, func() (*fileTable, error) { return newFileTable(encoded(t, x)) }); err != nil {
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
	distinct(s.tables([]cid.Cid{rootA, rootB}), nil, func(ipfs.File) bool { count++; return true })
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

// TestBeside: the neighbours of a file are the others of its directory, those behind it first,
// and not those below.
func TestBeside(t *testing.T) {
	x := &layer.Index{Entries: []layer.Entry{{Mode: os.ModeDir | 0o755, Parent: -1, Link: -1}}}
	add := func(parent int32, name string, mode os.FileMode) int32 {
		e := layer.Entry{Name: name, Mode: mode, Parent: parent, Link: -1}
		if mode.IsRegular() {
			sum := sha256.Sum256([]byte(name))
			e.Size, e.Digest = int64(len(name)), string(sum[:])
		}
		x.Entries = append(x.Entries, e)
		return int32(len(x.Entries) - 1)
	}
	add(0, "a-file", 0o644)
	dir := add(0, "dir", os.ModeDir|0o755)
	add(dir, "a", 0o644)
	below := add(dir, "below", os.ModeDir|0o755)
	add(below, "other", 0o644)
	add(dir, "c", 0o644)
	add(dir, "d", 0o644)
	add(0, "z-file", 0o644)
	table := tableOf(t, x)
	for name, want := range map[string][]string{"a": {"c", "d"}, "c": {"d", "a"}, "d": {"a", "c"}, "other": nil, "a-file": {"z-file"}, "z-file": {"a-file"}} {
		sum := sha256.Sum256([]byte(name))
		i, ok := table.find(ipfs.RawCid(string(sum[:])))
		if !ok {
			t.Fatalf("%s is not there", name)
		}
		var got []string
		table.beside(i, func(f ipfs.File) bool {
			k, _ := table.find(f.Cid)
			got = append(got, filepath.Base(table.path(k)))
			return true
		})
		if !slices.Equal(got, want) {
			t.Errorf("beside %s are %v, want %v", name, got, want)
		}
	}
}
