package objects

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// leave ends the use of a store as the end of its process would: nothing is synced or
// marked, the locks are free.
func leave(t *testing.T, s *Store) {
	t.Helper()
	close(s.closing)
	s.wg.Wait()
	if err := s.release(); err != nil {
		t.Fatal(err)
	}
	s.closeOnce.Do(func() {})
}

func openAt(t *testing.T, dir, boot string) *Store {
	t.Helper()
	s, err := openBoot(dir, Options{}, boot)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func commit(t *testing.T, s *Store, f ipfs.File, leaves []ipfs.Block) {
	t.Helper()
	p, err := s.Create(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range leaves {
		if err := p.WriteLeaf(i, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestUncleanBoot loses power after the files a, b, c were written; b and c did not
// reach the disk whole.
func TestUncleanBoot(t *testing.T) {
	for _, end := range []struct {
		name  string
		boot  string
		clean bool
		lost  bool // what was damaged is noticed by Open
	}{
		{"power failure", "second", false, true},
		{"crash of the process", "first", false, false},
		{"orderly", "second", true, false},
	} {
		t.Run(end.name, func(t *testing.T) {
			dir := t.TempDir()
			s := openAt(t, dir, "first")
			a, aLeaves := objectstest.NewFile(t, objectstest.Random(1, 2*ipfs.LeafSize+1))
			b, bLeaves := objectstest.NewFile(t, objectstest.Random(2, 2*ipfs.LeafSize+1))
			c, cLeaves := objectstest.NewFile(t, objectstest.Random(3, 100))
			commit(t, s, a, aLeaves)
			commit(t, s, b, bLeaves)
			commit(t, s, c, cLeaves)
			if end.clean {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			} else {
				leave(t, s)
			}
			scribble(t, s.objectPath(b.Cid), b.Size)
			scribble(t, s.objectPath(c.Cid), c.Size)
			s = openAt(t, dir, end.boot)
			if !s.HasFile(a) {
				t.Error("a good file is gone")
			}
			for _, f := range []ipfs.File{b, c} {
				if s.HasFile(f) == end.lost {
					t.Errorf("HasFile = %v, want %v", !end.lost, end.lost)
				}
			}
			if _, err := s.Get(t.Context(), cLeaves[0].Cid); err == nil {
				t.Error("a damaged leaf was served")
			}
		})
	}
}

// scribble leaves a file as a file system may after a power failure: size right, data
// never written.
func scribble(t *testing.T, path string, size int64) {
	t.Helper()
	err := errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 0), os.Truncate(path, size), os.Chmod(path, 0o444))
	if err != nil {
		t.Fatal(err)
	}
}

// TestOldObjectsAreNotHashedAgain: what the last Sync covered is trusted.
func TestOldObjectsAreNotHashedAgain(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "first")
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, 100))
	commit(t, s, f, leaves)
	later := time.Now().Add(time.Hour)
	if err := s.db.flush(entry{bucketState, []byte(stateSync), encodeInt(later.UnixNano())}); err != nil {
		t.Fatal(err)
	}
	leave(t, s)
	scribble(t, s.objectPath(f.Cid), f.Size)
	if s = openAt(t, dir, "second"); !s.HasFile(f) {
		t.Error("an object older than the last sync was hashed again")
	}
}

func TestOpenAfterUncleanEnd(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "first")
	node, err := ipfs.NewBlock(cid.DagProtobuf, []byte("node"))
	if err != nil {
		t.Fatal(err)
	}
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, ipfs.LeafSize+5))
	if err := s.Put(t.Context(), append(slices.Clone(leaves), node)...); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(t.Context(), ipfs.Pin{Root: node.Cid, Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	commit(t, s, f, leaves) // its loose leaves are not removed: no sync comes
	p, err := s.Create(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteLeaf(1, leaves[1]); err != nil {
		t.Fatal(err)
	}
	leave(t, s)
	s = openAt(t, dir, "second")
	if data, err := s.Get(t.Context(), node.Cid); err != nil || !bytes.Equal(data, node.Data) {
		t.Errorf("pinned block: %q, %v", data, err)
	}
	if pins, err := s.Pins(t.Context(), "kept"); err != nil || len(pins) != 1 {
		t.Errorf("Pins = %v, %v", pins, err)
	}
	if left, err := os.ReadDir(filepath.Join(dir, partialName)); err != nil || len(left) != 0 {
		t.Errorf("partial holds %v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, b := range leaves {
		if _, err := os.Lstat(s.objectPath(b.Cid)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("second copy of leaf %s is still there: %v", b.Cid, err)
		}
	}
	s = openAt(t, dir, "third")
	<-s.counted
	if got := s.Stats(); got != (Stats{Objects: 1, Bytes: f.Size}) {
		t.Errorf("Stats() = %+v after counting", got)
	}
}

// TestFullDisk runs on a file system of 16 MiB.
func TestFullDisk(t *testing.T) {
	dir := hosttest.Disk(t, "16m")
	s := openAt(t, filepath.Join(dir, "store"), "boot")
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, 4*ipfs.LeafSize+5))
	p, err := s.Create(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.WriteLeaf(0, leaves[0]); err != nil {
		t.Fatal(err)
	}
	kept := fillUp(t, s)
	wantNoSpace(t, "WriteLeaf", p.WriteLeaf(1, leaves[1]), dir)
	if p.Have(1) {
		t.Error("a leaf that was not written counts as there")
	}
	if left, err := os.ReadDir(filepath.Join(s.dir, partialName)); err != nil || len(left) != 1 {
		t.Errorf("partial holds %v, %v", left, err)
	}
	for _, b := range kept { // what was stored is good
		if data, err := s.Get(t.Context(), b.Cid); err != nil || !bytes.Equal(data, b.Data) {
			t.Errorf("block %s: %v", b.Cid, err)
		}
		if b.Cid.Prefix().Codec == cid.Raw {
			if err := os.Remove(s.objectPath(b.Cid)); err != nil {
				t.Fatal(err)
			}
		}
	}
	commit(t, s, f, leaves)
	for i, b := range leaves {
		if err := p.WriteLeaf(i, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Commit(), s.Pin(t.Context(), ipfs.Pin{Root: f.Cid})); err != nil {
		t.Fatalf("the store is not usable after space was made: %v", err)
	}
}

// fillUp puts blocks of ever smaller sizes until the disk takes none of them.
func fillUp(t *testing.T, s *Store) (kept []ipfs.Block) {
	t.Helper()
	seed := int64(100)
	for _, kind := range []struct {
		codec uint64
		size  int
	}{{cid.Raw, ipfs.LeafSize}, {cid.Raw, 4096}, {cid.DagProtobuf, 20_000}} {
		var stop error
		for ; stop == nil; seed++ {
			b, err := ipfs.NewBlock(kind.codec, objectstest.Random(seed, kind.size))
			if err != nil {
				t.Fatal(err)
			}
			if stop = s.Put(t.Context(), b); stop == nil {
				kept = append(kept, b)
			}
		}
		wantNoSpace(t, "Put", stop, s.dir)
	}
	return kept
}

func wantNoSpace(t *testing.T, what string, err error, dir string) {
	t.Helper()
	if !errors.Is(err, syscall.ENOSPC) || !bytes.Contains([]byte(err.Error()), []byte(dir)) {
		t.Errorf("%s on a full disk: %v", what, err)
	}
}
