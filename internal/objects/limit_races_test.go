package objects

import (
	"testing"

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
