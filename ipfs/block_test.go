package ipfs_test

import (
	"errors"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// TestBlockCheck finds wrong bytes however a block came by them.
func TestBlockCheck(t *testing.T) {
	a, err := ipfs.NewBlock(cid.Raw, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := ipfs.VerifiedBlock(a.Cid, []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := ipfs.NewBlock(cid.Raw, []byte("b"))
	if err != nil {
		t.Fatal(err)
	}
	empty, err := ipfs.NewBlock(cid.Raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	otherBytes, otherCid, longer := a, b, a
	otherBytes.Data, otherCid.Cid, longer.Data = []byte("b"), other.Cid, append(a.Data, 'x')
	for name, c := range map[string]struct {
		block ipfs.Block
		want  error
	}{
		"new": {a, nil}, "verified": {b, nil}, "empty": {empty, nil}, "by hand": {ipfs.Block{Cid: a.Cid, Data: []byte("a")}, nil},
		"equal bytes":         {ipfs.Block{Cid: a.Cid, Data: []byte("a")}, nil},
		"wrong by hand":       {ipfs.Block{Cid: a.Cid, Data: []byte("b")}, ipfs.ErrHash},
		"other bytes since":   {otherBytes, ipfs.ErrHash},
		"other CID since":     {otherCid, ipfs.ErrHash},
		"more bytes since":    {longer, ipfs.ErrHash},
		"nothing":             {ipfs.Block{}, ipfs.ErrHash},
		"empty for another":   {ipfs.Block{Cid: a.Cid}, ipfs.ErrHash},
		"bytes for the empty": {ipfs.Block{Cid: empty.Cid, Data: []byte("a")}, ipfs.ErrHash},
	} {
		if err := c.block.Check(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := ipfs.VerifiedBlock(a.Cid, []byte("b")); !errors.Is(err, ipfs.ErrHash) {
		t.Errorf("VerifiedBlock of wrong bytes: %v", err)
	}
}
