package embedded_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	blocks "github.com/ipfs/go-block-format"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestLateBlocksAfterRestart has a peer that still sends what the node wanted before it
// was restarted.
func TestLateBlocksAfterRestart(t *testing.T) {
	list := ipfstest.Blocks(t, 20, 1000)
	have := map[string]ipfs.Block{}
	for _, b := range list {
		have[b.Cid.String()] = b
	}
	late := 0
	honest := startRogue(t, func(wants []message.Entry) message.BitSwapMessage {
		msg := message.New(false)
		for _, w := range wants {
			if b, ok := have[w.Cid.String()]; ok && !w.Cancel {
				late++
				msg.AddBlock(blocks.NewBlock([]byte(fmt.Sprint("wanted by an earlier life: ", late))))
				blk, err := blocks.NewBlockWithCid(b.Data, b.Cid)
				if err != nil {
					t.Error(err)
				}
				msg.AddBlock(blk)
			}
		}
		return msg
	})
	cfg := embedded.Config{KeyFile: t.TempDir() + "/key", Peers: []string{honest.addr()}}
	if err := open(t, cfg, ipfstest.NewMemory()).Close(); err != nil {
		t.Fatal(err)
	}
	cli := open(t, cfg, ipfstest.NewMemory())
	id := honest.host.ID().String()
	waitConnected(t, cli, id)
	for _, b := range list {
		if _, err := cli.Get(t.Context(), b.Cid); err != nil {
			t.Fatal(err)
		}
	}
	if p := info(cli, id); p.Banned || p.Bad > 0 {
		t.Errorf("an honest peer after a restart: %+v", p)
	}
	if n := honest.fulls.Load(); n != 1 {
		t.Errorf("%d whole wantlists on one connection, want the first only", n)
	}
}

// TestPeerThatDropsConnections counts how often a peer is dialled that takes connections
// and speaks no bitswap, while a block is wanted.
func TestPeerThatDropsConnections(t *testing.T) {
	h, err := libp2p.New(libp2p.ListenAddrStrings(loopback), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	var dialled atomic.Int32
	h.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		dialled.Add(1)
		c.Close()
	}})
	addr := h.Addrs()[0].String() + "/p2p/" + h.ID().String()
	cli := open(t, embedded.Config{Peers: []string{addr}}, ipfstest.NewMemory())
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := cli.Get(ctx, ipfstest.Blocks(t, 1, 10)[0].Cid); err == nil {
		t.Fatal("got a block that nobody has")
	}
	// 100 ms, 200 ms, 400 ms and then every 500 ms.
	if n := dialled.Load(); n > 8 {
		t.Errorf("dialled %d times in a second", n)
	}
}
