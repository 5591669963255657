package embedded_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// leaves are what is incomplete.
type leaves map[cid.Cid][]byte

func (l leaves) HasLeaf(c cid.Cid) bool { return l[c] != nil }

func (l leaves) Leaf(c cid.Cid) ([]byte, error) {
	if data := l[c]; data != nil {
		return data, nil
	}
	return nil, fmt.Errorf("leaf %s: %w", c, ipfs.ErrNotFound)
}

// TestServeAlso gets a block that is not in the store of who has it yet.
func TestServeAlso(t *testing.T) {
	srv, cli := openPair(t, ipfstest.NewMemory(), ipfstest.NewMemory())
	list := ipfstest.Blocks(t, 2, 1000)
	more := leaves{list[0].Cid: list[0].Data, list[1].Cid: list[1].Data}
	srv.ServeAlso(more)
	if data, err := cli.Get(t.Context(), list[0].Cid); err != nil || len(data) != 1000 {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	srv.ServeAlso(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := cli.Get(ctx, list[1].Cid); err == nil {
		t.Error("a block came that is not served any more")
	}
	embedded.Offline(ipfstest.NewMemory()).ServeAlso(more) // serves nobody
}
