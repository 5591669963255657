package objects

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// begun makes a file of three leaves of which the last has not come.
func begun(t *testing.T, s *Store, seed int64) (*Partial, []ipfs.Block) {
	t.Helper()
	f, leaves := objectstest.NewFile(t, objectstest.Random(seed, 3*ipfs.LeafSize))
	p, err := s.Create(f)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range leaves[:2] {
		if err := p.WriteLeaf(i, b); err != nil {
			t.Fatal(err)
		}
	}
	return p, leaves
}

// age lets a file in the making lie idle for so long.
func age(p *Partial, idle time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.used = p.used.Add(-idle)
}

func wantParts(t *testing.T, s *Store, files int) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(s.dir, partialName))
	if err != nil || len(left) != files {
		t.Errorf("%d files in the making are left, %v; want %d", len(left), err, files)
	}
	if got, want := s.Space().Used, int64(files)*2*ipfs.LeafSize; got != want {
		t.Errorf("Used = %d, want %d", got, want)
	}
}

// TestPartialFilesCountForTheLimit evicts files that were read in part, the oldest first, and
// none that was used just now; they begin anew.
func TestPartialFilesCountForTheLimit(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	limited(s, 3*2*ipfs.LeafSize, nil)
	var parts []*Partial
	var leaves [][]ipfs.Block
	for i := range 5 {
		p, l := begun(t, s, int64(i))
		parts, leaves = append(parts, p), append(leaves, l)
		if i != 1 { // which is in use
			age(p, time.Duration(10-i)*time.Hour)
		}
	}
	wantParts(t, s, 5)
	s.evictDown()
	wantParts(t, s, 2)
	for i, p := range parts {
		if there := i == 1 || i == 4; p.Have(0) != there {
			t.Errorf("file %d: Have = %v", i, !there)
		}
	}
	for i, b := range leaves[0] {
		if err := parts[0].WriteLeaf(i, b); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, ipfs.LeafSize)
	if _, err := parts[0].ReadAt(got, ipfs.LeafSize); err != nil || !bytes.Equal(got, leaves[0][1].Data) {
		t.Errorf("read of what came again: %v", err)
	}
	if err := parts[0].Commit(); err != nil || !s.HasFile(parts[0].file) {
		t.Errorf("Commit: %v", err)
	}
	for _, p := range parts[1:] {
		if err := p.Abort(); err != nil {
			t.Error(err)
		}
	}
	if got, want := s.Space().Used, onDisk(parts[0].file.Size); got != want {
		t.Errorf("Used = %d at the end, want %d", got, want)
	}
}

// TestFreeTakesPartialFiles frees what came of a file of a removed image.
func TestFreeTakesPartialFiles(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	limited(s, 1<<40, nil)
	gone, _ := begun(t, s, 1)
	begun(t, s, 2)
	if freed, err := s.Free(t.Context(), []cid.Cid{gone.file.Cid}, time.Now()); freed != 2*ipfs.LeafSize || err != nil {
		t.Errorf("Free() = %d, %v", freed, err)
	}
	wantParts(t, s, 1)
}

// TestEmptiedUnderAReaderAndAWriter empties a file between the steps of a read and a write:
// neither takes the hole for what was there.
func TestEmptiedUnderAReaderAndAWriter(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	p, leaves := begun(t, s, 1)
	reader, _, err := p.acquire()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Release()
	if p.empty(time.Now()) == 0 {
		t.Fatal("not emptied")
	}
	if err := p.WriteLeaf(2, leaves[2]); err != nil { // into a new file
		t.Fatal(err)
	}
	if _, err := p.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrMissing) {
		t.Errorf("read of what went: %v", err)
	}
	got := make([]byte, ipfs.LeafSize)
	if _, err := reader.File().ReadAt(got, 0); err != nil || !bytes.Equal(got, leaves[0].Data) {
		t.Errorf("read from the file that went: %v", err)
	}
	if err := p.Commit(); !errors.Is(err, ErrMissing) {
		t.Errorf("Commit: %v", err)
	}
	if n, err := p.ReadAt(got, 2*ipfs.LeafSize); err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(got[:n], leaves[2].Data) {
		t.Errorf("read of what came since: %v", err)
	}
}

// TestEmptiedAllTheTime writes, reads, empties and finishes a file from many goroutines: what
// is read is right, and all of it is there in the end.
func TestEmptiedAllTheTime(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	data := objectstest.Random(1, 3*ipfs.LeafSize+5)
	f, leaves := objectstest.NewFile(t, data)
	p, err := s.Create(f)
	if err != nil {
		t.Fatal(err)
	}
	allowed := func(err error) bool {
		return err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrMissing) || errors.Is(err, ErrEvicted)
	}
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			got := make([]byte, 1000)
			for i := range 200 {
				leaf := (i + n) % len(leaves)
				if err := p.WriteLeaf(leaf, leaves[leaf]); !allowed(err) {
					t.Errorf("WriteLeaf: %v", err)
				}
				off := int64(leaf) * ipfs.LeafSize
				if k, err := p.ReadAt(got, off); !allowed(err) || !bytes.Equal(got[:k], data[off:][:k]) {
					t.Errorf("ReadAt(%d): %v, or wrong bytes", off, err)
				}
				if i%7 == n && i < 150 {
					p.empty(time.Now())
				}
			}
		})
	}
	wg.Wait()
	for i, b := range leaves {
		if err := p.WriteLeaf(i, b); err != nil {
			t.Error(err)
		}
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Space().Used, onDisk(f.Size); got != want {
		t.Errorf("Used = %d, want %d", got, want)
	}
	wantWhole(t, s)
}
