package objects

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// limited sets a limit without the goroutine that keeps it: the test calls evictDown.
func limited(s *Store, limit int64, keep func() []cid.Cid) {
	s.room.keep = keep
	s.room.limit.Store(limit)
}

// aged makes a file whose last use was so many hours ago.
func aged(t *testing.T, s *Store, seed int64, size, hours int) ipfs.File {
	t.Helper()
	f, leaves := objectstest.NewFile(t, objectstest.Random(seed, size))
	commit(t, s, f, leaves)
	used(t, s, f.Cid, hours)
	return f
}

func used(t *testing.T, s *Store, object cid.Cid, hours int) {
	t.Helper()
	<-s.counted // by their times
	at := time.Now().Add(-time.Duration(hours) * time.Hour)
	if err := os.Chtimes(s.objectPath(object), at, at); err != nil {
		t.Fatal(err)
	}
}

// node returns a dag-pb node with these links.
func node(t testing.TB, links ...cid.Cid) ipfs.Block {
	t.Helper()
	var out []byte
	for _, c := range links {
		link := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), c.Bytes())
		out = protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), link)
	}
	b, err := ipfs.NewBlock(cid.DagProtobuf, out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestEvictsWhatWasNotUsedForLongest(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	var files []ipfs.File
	for i := range 10 { // the first is the oldest
		files = append(files, aged(t, s, int64(i), 100_000, 20-i))
	}
	limited(s, 8*onDisk(100_000), nil)
	s.Touch(files[0].Cid) // not written to disk yet
	f, err := s.OpenFile(files[2])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.evictDown()
	// Down to nine tenths of eight: three go.
	for i, f := range files {
		if gone := i == 1 || i == 3 || i == 4; s.HasFile(f) == gone {
			t.Errorf("file %d: HasFile = %v", i, !gone)
		}
	}
	space := s.Space()
	if want := (Space{Limit: 8 * onDisk(100_000), Used: 7 * onDisk(100_000), EvictedObjects: 3, EvictedBytes: 300_000}); space != want {
		t.Errorf("Space() = %+v, want %+v", space, want)
	}
	if got := s.Stats(); got != (Stats{Objects: 7, Bytes: 700_000}) {
		t.Errorf("Stats() = %+v", got)
	}
}

// TestLimit waits for the store to evict by itself, and finds the recency after a restart.
func TestLimit(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "boot")
	old, young := aged(t, s, 1, 100_000, 1), aged(t, s, 2, 100_000, 2)
	limited(s, 1<<40, nil)
	s.Touch(young.Cid)
	s.room.limit.Store(0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "boot")
	if got := s.Space().Used; got != 2*onDisk(100_000) {
		t.Errorf("Used = %d after a restart", got)
	}
	asked := make(chan struct{}, 8)
	s.Limit(onDisk(100_000)*3/2, func() []cid.Cid {
		asked <- struct{}{}
		return nil
	})
	<-asked // it has begun, and holds room.batch until it is over
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	if s.HasFile(old) || !s.HasFile(young) {
		t.Errorf("old is there: %v, young: %v", s.HasFile(old), s.HasFile(young))
	}
}

// TestNeededStays evicts all that may go: what pins and keep need is still whole.
func TestNeededStays(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	pinned, pinnedLeaves := objectstest.NewFile(t, objectstest.Random(1, 2*ipfs.LeafSize+1))
	small, index := block(t, 2), block(t, 3)
	cached := aged(t, s, 4, ipfs.LeafSize+9, 5)
	gone := aged(t, s, 5, 1000, 4)
	// A leaf that is pinned, and lies in a larger object only.
	shared, sharedLeaves := objectstest.NewFile(t, objectstest.Random(6, ipfs.LeafSize+7))
	dir := node(t, pinned.Cid, small.Cid, node(t, sharedLeaves[1].Cid).Cid)
	blocks := append(slices.Clone(pinnedLeaves), small, index, sharedLeaves[1], node(t, sharedLeaves[1].Cid), dir)
	_, err := ipfs.BuildFile(pinned.Size, pinned.Leaves, func(b ipfs.Block) error {
		blocks = append(blocks, b)
		return nil
	})
	if err := errors.Join(err, s.Put(t.Context(), blocks...), s.Pin(t.Context(), ipfs.Pin{Root: dir.Cid, Name: "kept"})); err != nil {
		t.Fatal(err)
	}
	commit(t, s, shared, sharedLeaves)
	if err := s.Sync(t.Context()); err != nil { // takes the loose copy of the shared leaf
		t.Fatal(err)
	}
	limited(s, 1, func() []cid.Cid { return []cid.Cid{index.Cid} })
	s.evictDown()
	for _, b := range append(blocks, sharedLeaves...) {
		if data, err := s.Get(t.Context(), b.Cid); err != nil || !bytes.Equal(data, b.Data) {
			t.Errorf("block %s: %v", b.Cid, err)
		}
	}
	for _, f := range []ipfs.File{cached, gone} {
		if s.HasFile(f) {
			t.Errorf("%s was not evicted", f.Cid)
		}
	}
	wantWhole(t, s)
	if err := s.Unpin(t.Context(), ipfs.Pin{Root: dir.Cid, Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	s.evictDown()
	if n := s.Stats().Objects; n != 1 {
		t.Errorf("%d objects after Unpin, want the index alone", n)
	}
	wantWhole(t, s)
}

func block(t *testing.T, seed int64) ipfs.Block {
	t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, objectstest.Random(seed, 1000))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func wantWhole(t *testing.T, s *Store) {
	t.Helper()
	r, err := s.Check(t.Context(), CheckOptions{DryRun: true})
	if err != nil || r.Wrong() {
		t.Errorf("Check: %+v, %v", r, err)
	}
}

// TestNeededMeanwhile makes objects needed when it is settled what may go: they stay.
func TestNeededMeanwhile(t *testing.T) {
	for name, need := range map[string]func(*testing.T, *Store, ipfs.Block) error{
		"pinned":  func(t *testing.T, s *Store, b ipfs.Block) error { return s.Pin(t.Context(), ipfs.Pin{Root: b.Cid}) },
		"put":     func(t *testing.T, s *Store, b ipfs.Block) error { return s.Put(t.Context(), b) },
		"touched": func(_ *testing.T, s *Store, b ipfs.Block) error { s.Touch(b.Cid); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, t.TempDir(), "boot")
			f := aged(t, s, 1, 1000, 5)
			_, leaves := objectstest.NewFile(t, objectstest.Random(1, 1000))
			other := aged(t, s, 2, 1000, 1)
			var once bool
			limited(s, 1, func() []cid.Cid {
				if !once {
					once = true
					if err := need(t, s, leaves[0]); err != nil {
						t.Error(err)
					}
				}
				return nil
			})
			if _, err := s.evict(1); err != nil { // one is enough
				t.Fatal(err)
			}
			if !s.HasFile(f) || s.HasFile(other) {
				t.Errorf("needed is there: %v, other: %v", s.HasFile(f), s.HasFile(other))
			}
			if _, err := s.evict(1); err != nil {
				t.Fatal(err)
			}
			if s.HasFile(f) != (name != "touched") {
				t.Errorf("when nothing else is there: %v", s.HasFile(f))
			}
		})
	}
}

// TestEvictedFilesAreHeld reads an evicted object that is open, and counts what it takes.
func TestEvictedFilesAreHeld(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	told := false
	s.gone = func() { told = true }
	data := objectstest.Random(1, ipfs.LeafSize+5)
	f, leaves := objectstest.NewFile(t, data)
	commit(t, s, f, leaves)
	limited(s, 1<<40, nil)
	file, err := s.OpenFile(f)
	if err != nil {
		t.Fatal(err)
	}
	s.writeRecency()
	s.room.limit.Store(1)
	s.evictDown()
	if !told {
		t.Error("who keeps objects open was not told")
	}
	if held := s.Space().Held; s.HasFile(f) || held != f.Size {
		t.Errorf("HasFile = %v, Held = %d, want %d (this test needs root)", s.HasFile(f), held, f.Size)
	}
	if got, err := io.ReadAll(file); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read an evicted file that is open: %v", err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if held := s.Space().Held; held != 0 {
		t.Errorf("Held = %d when nothing is open", held)
	}
}

func TestReadOfWhatWasEvictedAfterCommit(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, ipfs.LeafSize+5))
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
	limited(s, 1, nil)
	s.evictDown()
	if _, err := p.ReadAt(make([]byte, 10), 0); !errors.Is(err, ErrEvicted) {
		t.Errorf("ReadAt: %v, want ErrEvicted", err)
	}
}

// TestFullDiskEvicts stores more than a small file system holds.
func TestFullDiskEvicts(t *testing.T) {
	dir := hosttest.Disk(t, "16m")
	s := openAt(t, filepath.Join(dir, "store"), "boot")
	limited(s, 20<<20, nil) // more than there is
	for seed := range int64(12) {
		f, leaves := objectstest.NewFile(t, objectstest.Random(seed, 3*ipfs.LeafSize))
		commit(t, s, f, leaves)
		used(t, s, f.Cid, 20-int(seed))
		if !s.HasFile(f) {
			t.Fatalf("file %d is not there", seed)
		}
	}
	if n := s.Space().EvictedObjects; n == 0 {
		t.Error("nothing was evicted")
	}
	b := block(t, 100)
	if err := errors.Join(s.Put(t.Context(), b), s.Pin(t.Context(), ipfs.Pin{Root: b.Cid})); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, s)
}

// TestTouchedObjectsAreNotHashedAgain: a use is no reason to doubt an object after a crash.
func TestTouchedObjectsAreNotHashedAgain(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "first")
	f := aged(t, s, 1, 100, 3)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave(t, s)
	scribble(t, s.objectPath(f.Cid), f.Size)
	used(t, s, f.Cid, 3)
	if s = openAt(t, dir, "second"); !s.HasFile(f) {
		t.Error("an object that was only touched was hashed again")
	}
}

// BenchmarkOldest looks for the oldest tenth of 20,000 objects.
func BenchmarkOldest(b *testing.B) {
	s := filled(b, 20_000, 1000)
	for b.Loop() {
		if list, err := s.oldest(s.used.Load()/10, nil); err != nil || len(list) < 2000 {
			b.Fatal(len(list), err)
		}
	}
}

// BenchmarkCheck hashes 256 objects of a MiB, or 20,000 small ones.
func BenchmarkCheck(b *testing.B) {
	for _, of := range []struct{ n, size int }{{256, ipfs.LeafSize}, {20_000, 1000}} {
		b.Run(fmt.Sprintf("%dx%d", of.n, of.size), func(b *testing.B) {
			s := filled(b, of.n, of.size)
			b.SetBytes(int64(of.n * of.size))
			for b.Loop() {
				if r, err := s.Check(b.Context(), CheckOptions{}); err != nil || r.Wrong() || r.Objects != int64(of.n) {
					b.Fatal(r, err)
				}
			}
		})
	}
}

// filled returns a store with n objects, on disk.
func filled(b *testing.B, n, size int) *Store {
	b.Helper()
	s, err := openBoot(b.TempDir(), Options{}, "boot")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	data := objectstest.Random(1, size)
	for i := range n {
		copy(data, fmt.Appendf(nil, "%12d", i))
		leaf, err := ipfs.NewBlock(cid.Raw, data)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Put(b.Context(), leaf); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkNeeded finds out what a pinned image of 100,000 files in 5,000 folders needs.
func BenchmarkNeeded(b *testing.B) {
	s, err := openBoot(b.TempDir(), Options{}, "boot")
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var dirs []cid.Cid
	var blocks []ipfs.Block
	for i := range 5000 {
		var files []cid.Cid
		for j := range 20 {
			leaf, err := ipfs.NewBlock(cid.Raw, fmt.Appendf(nil, "%d/%d", i, j))
			if err != nil {
				b.Fatal(err)
			}
			files = append(files, leaf.Cid)
		}
		dir := node(b, files...)
		blocks, dirs = append(blocks, dir), append(dirs, dir.Cid)
	}
	root := node(b, dirs...)
	if err := errors.Join(s.Put(b.Context(), append(blocks, root)...), s.Pin(b.Context(), ipfs.Pin{Root: root.Cid})); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if got, _, err := s.needed(nil); err != nil || len(got) != 105_001 {
			b.Fatal(len(got), err)
		}
	}
}
