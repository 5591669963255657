package objects_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

func create(t *testing.T, s *objects.Store, f ipfs.File) *objects.Partial {
	t.Helper()
	p, err := s.Create(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fill writes all leaves and commits.
func fill(t *testing.T, p *objects.Partial, leaves []ipfs.Block) {
	t.Helper()
	for i, b := range leaves {
		if err := p.WriteLeaf(i, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestFilesOfAllSizes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, size := range []int{0, 1, 4096, ipfs.LeafSize - 1, ipfs.LeafSize, ipfs.LeafSize + 1, 3*ipfs.LeafSize + 5, 65 * ipfs.LeafSize} {
		data := objectstest.Random(int64(size), size)
		f, leaves := objectstest.NewFile(t, data)
		p := create(t, s, f)
		if s.HasFile(f) {
			t.Fatalf("%d bytes: there before it was written", size)
		}
		for _, i := range rand.New(rand.NewSource(1)).Perm(len(leaves)) {
			if p.Have(i) || !slices.Contains(p.Missing(), i) || p.Complete() {
				t.Fatalf("%d bytes: leaf %d is there before it was written", size, i)
			}
			if err := p.Commit(); !errors.Is(err, objects.ErrMissing) {
				t.Fatalf("%d bytes: Commit without leaf %d: %v", size, i, err)
			}
			if err := p.WriteLeaf(i, leaves[i]); err != nil {
				t.Fatal(err)
			}
		}
		if len(p.Missing()) != 0 || !p.Complete() {
			t.Fatalf("%d bytes: leaves %v missing", size, p.Missing())
		}
		for range 2 {
			if err := p.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Abort(); err != nil || !s.HasFile(f) {
			t.Fatalf("%d bytes: HasFile = %v after Commit and Abort (%v)", size, s.HasFile(f), err)
		}
		if !bytes.Equal(readAll(t, s, f), data) {
			t.Fatalf("%d bytes: read back differs", size)
		}
		info, err := os.Stat(filepath.Join(s.ObjectsDir(), objects.Path(f.Cid)))
		if err != nil || info.Mode() != 0o640 {
			t.Fatalf("%d bytes: mode %v, %v", size, info.Mode(), err)
		}
		for _, b := range leaves {
			checkBlock(t, s, b)
		}
		checkNodes(t, s, f)
	}
	if left := partialFiles(t, dir); len(left) != 0 {
		t.Fatalf("partial holds %v", left)
	}
}

// checkNodes checks that the dag-pb nodes of a file are served too.
func checkNodes(t *testing.T, s *objects.Store, f ipfs.File) {
	t.Helper()
	if f.Leaves == "" {
		return
	}
	_, err := ipfs.BuildFile(f.Size, f.Leaves, func(b ipfs.Block) error {
		checkBlock(t, s, b)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPartialRefusesWhatIsNotTheFile(t *testing.T) {
	s := open(t, t.TempDir())
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, 2*ipfs.LeafSize+7))
	other, _ := objectstest.NewFile(t, objectstest.Random(2, 2*ipfs.LeafSize+7))

	stolen := other
	stolen.Cid = f.Cid // the name of one file, the leaves of another
	if _, err := s.Create(stolen); !errors.Is(err, ipfs.ErrFile) {
		t.Fatalf("Create of a file with the leaves of another: %v", err)
	}
	p := create(t, s, f)
	bad := slices.Clone(leaves[0].Data)
	bad[9] ^= 1
	if err := p.WriteLeaf(0, ipfs.Block{Cid: leaves[0].Cid, Data: bad}); !errors.Is(err, ipfs.ErrHash) {
		t.Errorf("WriteLeaf of a wrong leaf: %v", err)
	}
	if err := p.WriteLeaf(0, leaves[1]); !errors.Is(err, ipfs.ErrHash) {
		t.Errorf("WriteLeaf of another, right one: %v", err)
	}
	if err := p.WriteLeaf(2, leaves[0]); !errors.Is(err, ipfs.ErrFile) {
		t.Errorf("WriteLeaf of a leaf of the wrong size: %v", err)
	}
	for _, i := range []int{-1, 3, 1 << 20} {
		if err := p.WriteLeaf(i, leaves[0]); !errors.Is(err, ipfs.ErrFile) || p.Have(i) {
			t.Errorf("WriteLeaf(%d): %v", i, err)
		}
	}
	if err := p.WriteLeaf(1, leaves[1]); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	if _, err := p.ReadAt(buf, ipfs.LeafSize-5); !errors.Is(err, objects.ErrMissing) {
		t.Errorf("ReadAt over a missing leaf: %v", err)
	}
	if n, err := p.ReadAt(buf, ipfs.LeafSize+5); n != 10 || err != nil || !bytes.Equal(buf, leaves[1].Data[5:15]) {
		t.Errorf("ReadAt in a leaf that is here: %d, %v", n, err)
	}
	if _, err := p.ReadAt(buf, f.Size); err != io.EOF {
		t.Errorf("ReadAt at the end: %v", err)
	}
	if err := p.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := p.WriteLeaf(0, leaves[0]); !errors.Is(err, objects.ErrAborted) {
		t.Errorf("WriteLeaf after Abort: %v", err)
	}
}

func TestLooseLeavesGoWhenTheFileIsThere(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	shared := objectstest.Random(1, ipfs.LeafSize)
	f, leaves := objectstest.NewFile(t, append(slices.Clone(shared), []byte("first")...))
	g, gLeaves := objectstest.NewFile(t, append(slices.Clone(shared), []byte("second")...))
	if err := s.Put(t.Context(), append(slices.Clone(leaves), gLeaves...)...); err != nil {
		t.Fatal(err)
	}
	fill(t, create(t, s, f), leaves)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, true, false} { // whether the loose copy is gone
		c := append(slices.Clone(leaves), gLeaves[1])[i].Cid
		_, err := os.Stat(filepath.Join(s.ObjectsDir(), objects.Path(c)))
		if gone := errors.Is(err, os.ErrNotExist); gone != want {
			t.Errorf("leaf %d: loose copy gone is %v, want %v", i, gone, want)
		}
	}
	for _, b := range append(slices.Clone(leaves), gLeaves...) {
		checkBlock(t, s, b) // g is not complete, and yet can be read leaf by leaf
	}
	fill(t, create(t, s, g), gLeaves)
	// The first file rots: the leaf that both hold is still served.
	damage(t, filepath.Join(s.ObjectsDir(), objects.Path(f.Cid)), 100)
	checkBlock(t, s, gLeaves[0])
	checkBlock(t, s, leaves[1]) // nor is its good leaf lost
	if s.HasFile(f) {
		t.Error("the damaged file is still there")
	}
	fill(t, create(t, s, f), leaves)
	checkBlock(t, s, leaves[1])
}

func TestHoles(t *testing.T) {
	s := open(t, t.TempDir())
	data := make([]byte, 40*ipfs.LeafSize+100)
	copy(data[7*ipfs.LeafSize:], "in the middle of nothing")
	f, leaves := objectstest.NewFile(t, data)
	fill(t, create(t, s, f), leaves)
	zero := block(t, cid.Raw, make([]byte, 500_000))
	if err := s.Put(t.Context(), zero); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readAll(t, s, f), data) {
		t.Fatal("sparse file reads back differently")
	}
	checkBlock(t, s, zero)
	for c, most := range map[cid.Cid]int64{f.Cid: 2 * ipfs.LeafSize, zero.Cid: 0} {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(s.ObjectsDir(), objects.Path(c)), &st); err != nil {
			t.Fatal(err)
		}
		if st.Blocks*512 > most {
			t.Errorf("%d bytes take %d on disk, want at most %d", st.Size, st.Blocks*512, most)
		}
	}
}

func TestWrongSizeIsFetchedAgain(t *testing.T) {
	s := open(t, t.TempDir())
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, 3000))
	fill(t, create(t, s, f), leaves)
	if err := os.Truncate(filepath.Join(s.ObjectsDir(), objects.Path(f.Cid)), 10); err != nil {
		t.Fatal(err)
	}
	if s.HasFile(f) {
		t.Error("HasFile of a truncated file")
	}
	if _, err := s.OpenFile(f); !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("OpenFile of a truncated file: %v", err)
	}
	fill(t, create(t, s, f), leaves)
	if !bytes.Equal(readAll(t, s, f), leaves[0].Data) {
		t.Error("read back differs")
	}
}

func TestConcurrentWritersAndReaders(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	data := objectstest.Random(1, 9*ipfs.LeafSize+1)
	f, leaves := objectstest.NewFile(t, data)
	var wg sync.WaitGroup
	for w := range 3 { // three make the same file, each from three goroutines
		p := create(t, s, f)
		var parts sync.WaitGroup
		for part := range 3 {
			parts.Go(func() {
				for i := range leaves {
					if err := p.WriteLeaf((i+3*part+w)%len(leaves), leaves[(i+3*part+w)%len(leaves)]); err != nil {
						t.Error(err)
					}
					buf := make([]byte, 1000)
					if _, err := p.ReadAt(buf, 500); err != nil && !errors.Is(err, objects.ErrMissing) {
						t.Error(err)
					}
				}
			})
		}
		wg.Go(func() {
			parts.Wait()
			if err := p.Commit(); err != nil {
				t.Error(err)
			}
			buf := make([]byte, len(data))
			if _, err := p.ReadAt(buf, 0); err != nil || !bytes.Equal(buf, data) {
				t.Errorf("read after Commit: %v", err)
			}
		})
		wg.Go(func() {
			for _, b := range leaves {
				if err := s.Put(t.Context(), b); err != nil {
					t.Error(err)
				}
				if _, err := s.Get(t.Context(), b.Cid); err != nil {
					t.Error(err)
				}
			}
			if err := s.Sync(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if !bytes.Equal(readAll(t, s, f), data) || len(partialFiles(t, dir)) != 0 {
		t.Errorf("read back differs, or partial files are left: %v", partialFiles(t, dir))
	}
}
