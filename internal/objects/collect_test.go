package objects

import (
	"context"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

func noneUsed(cid.Cid) bool { return false }

// old makes objects that are here as if they had come and been used before putGrace, to a process
// that remembers nothing of it.
func old(t *testing.T, s *Store, objects ...cid.Cid) {
	t.Helper()
	<-s.counted
	at := time.Now().Add(-2 * putGrace)
	for _, c := range objects {
		if err := os.Chtimes(s.objectPath(c), at, at); err != nil {
			t.Fatal(err)
		}
	}
	clear(s.room.put)
}

// collected returns what Collect has removed, by digest.
func collected(t *testing.T, s *Store, used func(cid.Cid) bool) (gone []cid.Cid, freed int64) {
	t.Helper()
	freed, err := s.Collect(t.Context(), used, func(c cid.Cid) { gone = append(gone, c) })
	if err != nil {
		t.Fatal(err)
	}
	return gone, freed
}

// TestCollect removes all that nothing needs and nobody is about to pin, with a limit and without.
func TestCollect(t *testing.T) {
	for name, limit := range map[string]int64{"unlimited": 0, "limited": 1 << 40} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, t.TempDir(), "boot")
			fetched, large := aged(t, s, 1, 1000, 3), aged(t, s, 2, 2*ipfs.LeafSize+1, 3)
			pinned, kept, used := aged(t, s, 3, ipfs.LeafSize+1, 3), aged(t, s, 4, 1000, 3), aged(t, s, 5, 1000, 3)
			put, again, leaf, late, cached := block(t, 6), block(t, 7), block(t, 8), block(t, 9), block(t, 10)
			limited(s, limit, func() []cid.Cid { return []cid.Cid{kept.Cid} })
			err := errors.Join(s.Pin(t.Context(), ipfs.Pin{Root: pinned.Cid}), s.Put(t.Context(), put, again, leaf))
			if err != nil {
				t.Fatal(err)
			}
			old(t, s, put.Cid, again.Cid, leaf.Cid)
			if err := errors.Join(s.Put(t.Context(), late, again), s.Cache(t.Context(), cached)); err != nil {
				t.Fatal(err)
			}
			gone, freed := collected(t, s, func(c cid.Cid) bool { return c.Equals(used.Cid) || c.Equals(leaf.Cid) })
			want := []cid.Cid{fetched.Cid, large.Cid, put.Cid}
			for _, list := range [][]cid.Cid{gone, want} {
				slices.SortFunc(list, func(a, b cid.Cid) int { return slices.Compare(a.Bytes(), b.Bytes()) })
			}
			if !slices.Equal(gone, want) {
				t.Errorf("removed %v, want %v", gone, want)
			}
			if want := 2*onDisk(1000) + onDisk(large.Size); freed != want {
				t.Errorf("freed %d bytes, want %d", freed, want)
			}
			for _, c := range []cid.Cid{pinned.Cid, kept.Cid, used.Cid, again.Cid, leaf.Cid, late.Cid, cached.Cid} {
				if !s.hasObject(c) {
					t.Errorf("%s is gone", c)
				}
			}
			for i := range pinned.NumLeaves() {
				if _, err := s.Get(t.Context(), pinned.Leaf(i)); err != nil {
					t.Error(err)
				}
			}
			wantWhole(t, s)
		})
	}
}

// TestCollectAfterRestart knows what was put within the hour although another process did.
func TestCollectAfterRestart(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir, "boot")
	put, again := block(t, 1), block(t, 2)
	if err := s.Put(t.Context(), put, again); err != nil {
		t.Fatal(err)
	}
	old(t, s, again.Cid)
	if err := errors.Join(s.Put(t.Context(), again), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir, "boot")
	if gone, _ := collected(t, s, noneUsed); len(gone) > 0 {
		t.Errorf("removed %v", gone)
	}
	old(t, s, put.Cid, again.Cid)
	if gone, _ := collected(t, s, noneUsed); len(gone) != 2 {
		t.Errorf("an hour later removed %v", gone)
	}
}

// TestCollectWhileNeeded makes objects needed while garbage is collected: they stay.
func TestCollectWhileNeeded(t *testing.T) {
	for name, need := range map[string]func(*testing.T, *Store, ipfs.Block) error{
		"pinned": func(t *testing.T, s *Store, b ipfs.Block) error { return s.Pin(t.Context(), ipfs.Pin{Root: b.Cid}) },
		"put":    func(t *testing.T, s *Store, b ipfs.Block) error { return s.Put(t.Context(), b) },
		"cached": func(t *testing.T, s *Store, b ipfs.Block) error { return s.Cache(t.Context(), b) },
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, t.TempDir(), "boot")
			b, other := block(t, 1), block(t, 2)
			if err := s.Put(t.Context(), b, other); err != nil {
				t.Fatal(err)
			}
			old(t, s, b.Cid, other.Cid)
			asked := 0
			gone, _ := collected(t, s, func(c cid.Cid) bool {
				if asked++; asked == 1 { // what is needed was found out before
					if err := need(t, s, b); err != nil {
						t.Error(err)
					}
				}
				return false
			})
			if len(gone) != 1 || !gone[0].Equals(other.Cid) || !s.hasObject(b.Cid) {
				t.Errorf("removed %v, want %s alone", gone, other.Cid)
			}
		})
	}
}

// TestCollectStops ends with its context, and when it is not known what pins need.
func TestCollectStops(t *testing.T) {
	s := openAt(t, t.TempDir(), "boot")
	f := aged(t, s, 1, 1000, 3)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.Collect(ctx, func(cid.Cid) bool { cancel(); return false }, func(cid.Cid) { t.Error("an object was removed") })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	dir := node(t, f.Cid)
	if err := errors.Join(s.Put(t.Context(), dir), s.Pin(t.Context(), ipfs.Pin{Root: dir.Cid})); err != nil {
		t.Fatal(err)
	}
	digest, _ := digestOf(dir.Cid)
	if err := s.db.flush(entry{bucketBlocks, []byte(digest), []byte("damaged")}); err != nil {
		t.Fatal(err)
	}
	_, err = s.Collect(t.Context(), noneUsed, func(cid.Cid) {})
	if err == nil || !s.HasFile(f) {
		t.Errorf("a pin is damaged: %v; the file below it is there: %v", err, s.HasFile(f))
	}
}
