package system

import (
	"path/filepath"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	rpc "github.com/hinshun/ipcs/ipfs/kubo"
)

// newSpread returns a spread over three nodes in memory.
func newSpread(t *testing.T) (*spread, []*ipfstest.Memory) {
	t.Helper()
	var memories []*ipfstest.Memory
	var nodes []ipfs.Node
	for range 3 {
		m := ipfstest.NewMemory()
		memories, nodes = append(memories, m), append(nodes, m)
	}
	sp := &spread{socket: filepath.Join(t.TempDir(), "s.sock")}
	sp.over(nodes)
	return sp, memories
}

// TestSpreadIsANode holds a spread to what every node is held to.
func TestSpreadIsANode(t *testing.T) {
	ipfstest.Suite(t, func(t *testing.T) ipfs.Node {
		sp, _ := newSpread(t)
		return sp
	})
}

// TestSpreadShares puts blocks through the socket, as convert does.
func TestSpreadShares(t *testing.T) {
	blocks := ipfstest.Blocks(t, 600, 100)
	put := func(sp *spread, blocks []ipfs.Block) error {
		return sp.fill(t.Context(), func(api string) error {
			c, err := rpc.New(api)
			if err != nil {
				return err
			}
			defer c.Close()
			return c.Put(t.Context(), blocks...)
		})
	}
	few, _ := newSpread(t)
	if err := put(few, blocks[:1]); err == nil {
		t.Error("one block was spread over three nodes")
	}
	sp, memories := newSpread(t)
	if err := put(sp, blocks); err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, share := range sp.shares {
		n += len(share)
		if got := memories[i].Len(); got != len(share) {
			t.Errorf("node %d has %d blocks, counted are %d", i+1, got, len(share))
		}
	}
	if n != len(blocks) {
		t.Errorf("%d nodes have %d blocks, %d were put", len(memories), n, len(blocks))
	}
}
