package objects

import (
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// TestCountLeavesOutWhatCameLater counts while objects arrive: those were counted when
// they came.
func TestCountLeavesOutWhatCameLater(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	<-s.counted
	s.counted = make(chan struct{})
	opened, err := fileClock()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ipfs.NewBlock(cid.Raw, []byte("later"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), leaf); err != nil {
		t.Fatal(err)
	}
	s.count(opened)
	if got, want := s.Stats(), (Stats{Objects: 1, Bytes: 5}); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
}
