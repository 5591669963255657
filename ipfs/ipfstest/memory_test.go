package ipfstest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

func TestMemory(t *testing.T) {
	ipfstest.Suite(t, func(t *testing.T) ipfs.Node { return ipfstest.NewMemory() })
}

func TestMemoryPeers(t *testing.T) {
	blocks := ipfstest.Blocks(t, 3, 100)
	good, bad, m := ipfstest.NewMemory(), ipfstest.NewMemory(), ipfstest.NewMemory()
	for _, n := range []*ipfstest.Memory{good, bad} {
		if err := n.Put(t.Context(), blocks...); err != nil {
			t.Fatal(err)
		}
	}
	bad.Corrupt(blocks[0].Cid)
	m.Connect(bad)
	if _, err := m.Get(t.Context(), blocks[0].Cid); !errors.Is(err, ipfs.ErrNotFound) {
		t.Fatalf("Get from a lying peer: %v, want ErrNotFound", err)
	}
	if _, err := bad.Get(t.Context(), blocks[0].Cid); !errors.Is(err, ipfs.ErrHash) {
		t.Fatalf("Get of a corrupt block: %v, want ErrHash", err)
	}
	m.Connect(good)
	if _, err := m.Get(t.Context(), blocks[0].Cid); err != nil {
		t.Fatal(err)
	}
	if err := m.Fetch(t.Context(), ipfstest.Cids(blocks[1:]), func(ipfs.Block) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if m.Len() != 1 {
		t.Errorf("%d blocks kept, want the one that Get got and not those of Fetch", m.Len())
	}
	if n := m.Counts(); n.Gets != 2 || n.Fetches != 1 || n.FromPeers != 3 {
		t.Errorf("counts %+v", n)
	}
}

func TestMemoryFaults(t *testing.T) {
	m := ipfstest.NewMemory()
	b := ipfstest.Blocks(t, 1, 100)[0]
	broken := errors.New("disk on fire")
	m.SetFault(func(op string, c cid.Cid) error {
		if op == "put" && c.Equals(b.Cid) {
			return broken
		}
		return nil
	})
	if err := m.Put(t.Context(), b); !errors.Is(err, broken) {
		t.Fatalf("Put: %v", err)
	}
	m.SetFault(nil)
	m.SetLatency(time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Put(ctx, b); !errors.Is(err, context.Canceled) {
		t.Fatalf("Put on a slow node: %v", err)
	}
}
