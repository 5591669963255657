package objects

import (
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

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
	if freed, err := s.Free(t.Context(), all); freed != 0 || err != nil {
		t.Errorf("without a limit: %d, %v", freed, err)
	}
	limited(s, 1<<40, func() []cid.Cid { return []cid.Cid{kept.Cid} })
	if err := s.Put(t.Context(), leaves...); err != nil {
		t.Fatal(err)
	}
	s.Touch(small.Cid)
	freed, err := s.Free(t.Context(), all)
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
