package objects

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestFreeUnlimited frees what was fetched, and nothing that was ever put.
func TestFreeUnlimited(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "boot")
	s.Limit(0, nil)
	fetched, pinned, both := aged(t, s, 1, 3*ipfs.LeafSize, 1), aged(t, s, 2, 1000, 1), aged(t, s, 3, 1000, 1)
	leaf := aged(t, s, 4, 2*ipfs.LeafSize, 1)
	_, again := objectstest.NewFile(t, objectstest.Random(3, 1000))
	_, some := objectstest.NewFile(t, objectstest.Random(4, 2*ipfs.LeafSize))
	put, puts := objectstest.NewFile(t, objectstest.Random(5, 1000))
	cached, blocks := objectstest.NewFile(t, objectstest.Random(6, 1000))
	// Put as leaves, then fetched whole: then the leaves are removed.
	late, leaves := objectstest.NewFile(t, objectstest.Random(7, 2*ipfs.LeafSize))
	err := errors.Join(s.Pin(t.Context(), ipfs.Pin{Root: pinned.Cid}), s.Put(t.Context(), again...), s.Put(t.Context(), some[:1]...),
		s.Put(t.Context(), puts...), s.Cache(t.Context(), blocks...), s.Cache(t.Context(), puts...), s.Put(t.Context(), leaves...))
	if err != nil {
		t.Fatal(err)
	}
	commit(t, s, late, leaves)
	if err := s.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if has, err := os.Lstat(s.objectPath(leaves[0].Cid)); err == nil {
		t.Fatalf("the loose leaf is still there: %v", has)
	}
	if err := s.Close(); err != nil { // what is known is known to the next process
		t.Fatal(err)
	}
	s = openAt(t, dir, "boot")
	freed, err := s.Free(t.Context(), []cid.Cid{fetched.Cid, pinned.Cid, both.Cid, leaf.Cid, put.Cid, cached.Cid, late.Cid}, time.Now())
	if want := onDisk(fetched.Size) + onDisk(cached.Size); freed != want || err != nil {
		t.Errorf("freed %d bytes, want %d (%v)", freed, want, err)
	}
	for _, f := range []ipfs.File{pinned, both, leaf, put, late} {
		if !s.HasFile(f) {
			t.Errorf("file %s of %d bytes is gone", f.Cid, f.Size)
		}
	}
	for _, f := range []ipfs.File{fetched, cached} {
		if s.HasFile(f) {
			t.Errorf("file %s of %d bytes is here", f.Cid, f.Size)
		}
	}
	wantWhole(t, s)
}

// TestFree frees what nothing needs, however lately it was used.
func TestFree(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	small, large := aged(t, s, 1, 1000, 1), aged(t, s, 2, 3*ipfs.LeafSize, 1)
	pinned, kept := aged(t, s, 3, 2*ipfs.LeafSize, 1), aged(t, s, 4, 1000, 1)
	other := aged(t, s, 5, 1000, 1)
	put, leaves := objectstest.NewFile(t, objectstest.Random(6, 1000))
	all := []cid.Cid{small.Cid, large.Cid, pinned.Cid, kept.Cid, put.Cid, ipfs.RawCid(string(make([]byte, 32)))}
	if err := s.Pin(t.Context(), ipfs.Pin{Root: pinned.Cid}); err != nil {
		t.Fatal(err)
	}
	limited(s, 1<<40, func() []cid.Cid { return []cid.Cid{kept.Cid} })
	if err := s.Put(t.Context(), leaves...); err != nil {
		t.Fatal(err)
	}
	s.Touch(small.Cid)
	freed, err := s.Free(t.Context(), all, time.Now())
	if want := onDisk(small.Size) + onDisk(large.Size); freed != want || err != nil {
		t.Errorf("freed %d bytes, want %d (%v)", freed, want, err)
	}
	for _, c := range []struct {
		file ipfs.File
		here bool
	}{{small, false}, {large, false}, {pinned, true}, {kept, true}, {other, true}, {put, true}} {
		if s.HasFile(c.file) != c.here {
			t.Errorf("file %s of %d bytes is here: %v", c.file.Cid, c.file.Size, !c.here)
		}
	}
	wantWhole(t, s)
}

// TestFreeUmask keeps what was put under whatever umask, also by a process before that did not
// set the mode.
func TestFreeUmask(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	put, before, cached := block(t, 1), block(t, 2), block(t, 3)
	store := func(mask int) {
		defer unix.Umask(unix.Umask(mask))
		if err := errors.Join(s.Put(t.Context(), put), s.Put(t.Context(), before), s.Cache(t.Context(), cached)); err != nil {
			t.Fatal(err)
		}
	}
	for mask := range 0o1000 {
		if fetched := 0o444&^mask == int(fetchedMode); fetched {
			t.Fatalf("what was put under umask %03o looks as if it had been fetched", mask)
		}
	}
	store(0o027)
	if err := os.Chmod(s.objectPath(before.Cid), 0o444&^0o027); err != nil {
		t.Fatal(err)
	}
	freed, err := s.Free(t.Context(), []cid.Cid{put.Cid, before.Cid, cached.Cid}, time.Now())
	if err != nil || freed != onDisk(int64(len(cached.Data))) || s.hasObject(cached.Cid) || !s.hasObject(put.Cid) || !s.hasObject(before.Cid) {
		t.Errorf("freed %d (%v); there: cached %v, put %v, put before %v", freed, err, s.hasObject(cached.Cid), s.hasObject(put.Cid), s.hasObject(before.Cid))
	}
}

// TestPutLosesRace puts a block that is fetched meanwhile: it counts as put.
func TestPutLosesRace(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	b := block(t, 1)
	if err := errors.Join(s.Cache(t.Context(), b), s.writeObject(b.Cid, b.Data, putMode)); err != nil {
		t.Fatal(err)
	}
	if freed, err := s.Free(t.Context(), []cid.Cid{b.Cid}, time.Now()); freed != 0 || err != nil || !s.hasObject(b.Cid) {
		t.Errorf("freed %d (%v)", freed, err)
	}
}

// TestFreeCachedMeanwhile stores something again when it is settled what may go: it stays until
// that is settled anew.
func TestFreeCachedMeanwhile(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	again, gone := block(t, 1), block(t, 2)
	if err := s.Cache(t.Context(), again, gone); err != nil {
		t.Fatal(err)
	}
	since := time.Now()
	s.Limit(0, func() []cid.Cid {
		if err := s.Cache(t.Context(), again); err != nil {
			t.Error(err)
		}
		return nil
	})
	all := []cid.Cid{again.Cid, gone.Cid}
	if _, err := s.Free(t.Context(), all, since); err != nil || !s.hasObject(again.Cid) || s.hasObject(gone.Cid) {
		t.Errorf("%v; there: cached again %v, the other %v", err, s.hasObject(again.Cid), s.hasObject(gone.Cid))
	}
	s.room.keep = nil
	if _, err := s.Free(t.Context(), all, time.Now()); err != nil || s.hasObject(again.Cid) {
		t.Errorf("%v; there when it is not stored again: %v", err, s.hasObject(again.Cid))
	}
}

// TestFreeEnds frees no more when its context ends, and says so.
func TestFreeEnds(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	f := aged(t, s, 1, 1000, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s.Limit(0, func() []cid.Cid { cancel(); return nil })
	if freed, err := s.Free(ctx, []cid.Cid{f.Cid}, time.Now()); freed != 0 || !errors.Is(err, context.Canceled) || !s.HasFile(f) {
		t.Errorf("freed %d (%v)", freed, err)
	}
}
