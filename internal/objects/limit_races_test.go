package objects

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestPutStaysWhereItGoes puts a leaf, whose loose copy then gives way to a larger object that
// nothing else needs.
func TestPutStaysWhereItGoes(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	limited(s, 1, nil)
	f, leaves := objectstest.NewFile(t, objectstest.Random(1, 2*ipfs.LeafSize))
	if err := s.Put(t.Context(), leaves[0]); err != nil {
		t.Fatal(err)
	}
	commit(t, s, f, leaves)
	if err := s.Sync(t.Context()); err != nil { // takes the loose copy
		t.Fatal(err)
	}
	if s.hasObject(leaves[0].Cid) {
		t.Fatal("the loose copy is still there")
	}
	s.evictDown()
	if _, err := s.Get(t.Context(), leaves[0].Cid); err != nil {
		t.Errorf("a leaf that was put just now: %v", err)
	}
}

// TestDiscardLeavesWhatCameMeanwhile has two readers find the same damage: when the second
// comes to remove the object, it has been put again.
func TestDiscardLeavesWhatCameMeanwhile(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	b := block(t, 1)
	if err := s.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	flip(t, s, b.Cid, 0)
	seen, err := os.Lstat(s.objectPath(b.Cid))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), b.Cid); !errors.Is(err, ipfs.ErrHash) {
		t.Fatalf("Get of a damaged object: %v", err)
	}
	if err := s.Put(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	s.discard(b.Cid, seen, ipfs.ErrHash)
	if got, err := s.Get(t.Context(), b.Cid); err != nil || !bytes.Equal(got, b.Data) {
		t.Errorf("what was put again: %v", err)
	}
	if got := s.Stats(); got.Objects != 1 {
		t.Errorf("%d objects, want 1", got.Objects)
	}
}

// TestFreeWaitsForTheCount frees an object that the count after an unclean end has not come to.
func TestFreeWaitsForTheCount(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "boot")
	gone, stays := aged(t, s, 1, 1000, 1), aged(t, s, 2, 1000, 1)
	limited(s, 1<<40, func() []cid.Cid {
		select {
		case <-s.counted:
		default:
			t.Error("freeing has begun before the store has counted what it has")
		}
		return nil
	})
	uncount(s)
	var freeing sync.WaitGroup
	freeing.Go(func() {
		if _, err := s.Free(t.Context(), []cid.Cid{gone.Cid}, time.Now()); err != nil {
			t.Error(err)
		}
	})
	for range 1000 { // it may begin, if it does not wait
		runtime.Gosched()
	}
	s.count(time.Now().Add(time.Hour))
	freeing.Wait()
	if got := s.Space().Used; s.HasFile(gone) || !s.HasFile(stays) || got != onDisk(1000) {
		t.Errorf("Used = %d, want %d", got, onDisk(1000))
	}
}

// TestFreeLeavesWhatIsUsed does not settle anew what may go because an object was used meanwhile:
// it stays, however often that is done.
func TestFreeLeavesWhatIsUsed(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	used, idle := aged(t, s, 1, 1000, 1), aged(t, s, 2, 1000, 1)
	settled := 0
	limited(s, 1<<40, func() []cid.Cid {
		settled++
		s.Touch(used.Cid)
		return nil
	})
	if freed, err := s.Free(t.Context(), []cid.Cid{used.Cid, idle.Cid}, time.Now()); freed != onDisk(1000) || err != nil {
		t.Errorf("Free() = %d, %v", freed, err)
	}
	if !s.HasFile(used) || s.HasFile(idle) || settled != 1 {
		t.Errorf("used is there: %v, idle: %v; settled %d times what may go", s.HasFile(used), s.HasFile(idle), settled)
	}
}

// uncount makes the store as it is before it has counted what it has.
func uncount(s *Store) {
	<-s.counted
	s.counted = make(chan struct{})
	s.objects.Store(0)
	s.bytes.Store(0)
	s.used.Store(0)
}
