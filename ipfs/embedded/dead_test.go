package embedded_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestDeadPeerCostsOneTimeout reads a thousand blocks, one after the other, from a good peer that
// is busy with a long list as well, beside one that takes all wants and answers none.
func TestDeadPeerCostsOneTimeout(t *testing.T) {
	var asked atomic.Int32
	dead := map[string]func(t *testing.T) string{
		"Bitswap": func(t *testing.T) string {
			return startRogue(t, func(wants []message.Entry) message.BitSwapMessage {
				for _, w := range wants {
					if !w.Cancel {
						asked.Add(1)
					}
				}
				return nil
			}).addr()
		},
		"Blocks": func(t *testing.T) string {
			return addrOf(startBlockRogue(t, func(_ network.Stream, _ int, wants [][]byte) error {
				asked.Add(int32(len(wants)))
				return nil
			}))
		},
	}
	for name, start := range dead {
		t.Run(name, func(t *testing.T) {
			asked.Store(0)
			server := ipfstest.NewMemory()
			list := ipfstest.Blocks(t, 4000, 2000)
			put(t, server, list...)
			good := open(t, embedded.Config{}, server)
			deadAddr := start(t)
			cli := open(t, embedded.Config{Peers: append(good.Addrs(), deadAddr)}, ipfstest.NewMemory())
			waitConnected(t, cli, good.ID())
			eventually(t, "both connections", func() bool { return len(cli.Connected()) == 2 })
			// The first wants find out who is dead.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			begin := time.Now()
			if n, err := fetchAll(ctx, cli, ipfstest.Cids(list[:100])); n != 100 || err != nil {
				t.Fatalf("%d of 100 blocks: %v", n, err)
			}
			found, before := time.Since(begin), asked.Load()
			var wg sync.WaitGroup
			wg.Go(func() {
				fill := ipfs.WithRank(ctx, ipfs.Spare)
				if n, err := fetchAll(fill, cli, ipfstest.Cids(list[1100:])); err != nil {
					t.Errorf("%d of the long list: %v", n, err)
				}
			})
			begin = time.Now()
			for _, b := range list[100:1100] {
				if _, err := cli.Get(ctx, b.Cid); err != nil {
					t.Fatal(err)
				}
			}
			t.Logf("100 blocks in %v, then 1000 reads in %v", found, time.Since(begin))
			wg.Wait()
			if got := asked.Load() - before; got > 0 {
				t.Errorf("the dead peer was asked for %d blocks after it had kept back others", got)
			}
		})
	}
}
