package embedded_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// narrow is a store behind a link that carries rate bytes a second, and counts what went over it.
type narrow struct {
	*ipfstest.Memory
	rate  float64
	mu    sync.Mutex
	bytes atomic.Int64
}

func (n *narrow) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := n.Memory.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	n.bytes.Add(int64(len(data)))
	n.mu.Lock()
	defer n.mu.Unlock()
	time.Sleep(time.Duration(float64(len(data)) / n.rate * float64(time.Second)))
	return data, nil
}

// TestSwarm has many nodes fetch the same from one publisher with a slow link, all at once, each
// beginning somewhere else: the publisher sends it little more than once, and the rest they have from each other.
func TestSwarm(t *testing.T) {
	const nodes, size, count = 8, 32 << 10, 800
	list := ipfstest.Blocks(t, count, size)
	slow := &narrow{Memory: ipfstest.NewMemory(), rate: 10e6}
	if err := slow.Put(t.Context(), list...); err != nil {
		t.Fatal(err)
	}
	publisher := open(t, embedded.Config{}, slow)
	peers := publisher.Addrs()
	var all []*embedded.Node
	for range nodes {
		n := open(t, embedded.Config{Peers: peers}, ipfstest.NewMemory())
		peers = append(peers, n.Addrs()...)
		all = append(all, n)
	}
	for i, n := range all {
		waitConnected(t, n, publisher.ID())
		for _, other := range all[:i] {
			waitConnected(t, n, other.ID())
		}
	}
	start := time.Now()
	var wg sync.WaitGroup
	for i, n := range all {
		wg.Go(func() {
			var cids []cid.Cid
			for j := range list {
				cids = append(cids, list[(i*count/nodes*5+j)%count].Cid)
			}
			ctx := ipfs.WithBlockSize(ipfs.WithRank(t.Context(), ipfs.Planned), size)
			if err := n.Fetch(ctx, cids, func(b ipfs.Block) error { return n.Cache(ctx, b) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	sent := float64(slow.bytes.Load()) / (size * count)
	t.Logf("%d nodes had all after %v; the publisher sent it %.2f times", nodes, time.Since(start).Round(time.Millisecond), sent)
	if sent > nodes/2 { // it is 1.2 to 1.5 where nothing else runs, and nearly nodes where each asks it for all
		t.Errorf("the publisher sent it %.2f times", sent)
	}
}
