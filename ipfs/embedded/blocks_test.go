package embedded_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// keptForms keeps compressed forms in memory.
type keptForms struct {
	mu    sync.Mutex
	forms map[cid.Cid]keptForm
	used  int
}

type keptForm struct {
	frame []byte
	size  int
}

func (k *keptForms) Form(c cid.Cid) ([]byte, int, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f, ok := k.forms[c]
	if ok {
		k.used++
	}
	return f.frame, f.size, ok
}

func (k *keptForms) Keep(c cid.Cid, frame []byte, size int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forms[c] = keptForm{frame, size}
}

func (k *keptForms) counts() (kept, used int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.forms), k.used
}

// TestTransferBetweenNodes has all blocks of a list come over our own protocol, compressed.
func TestTransferBetweenNodes(t *testing.T) {
	server := ipfstest.NewMemory()
	small, large := ipfstest.Blocks(t, 500, 3000), ipfstest.Blocks(t, 5, ipfs.LeafSize)
	all := append(small, large...)
	put(t, server, all...)
	srv, cli := openPair(t, server, ipfstest.NewMemory())
	if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(all)); n != len(all) || err != nil {
		t.Fatalf("%d of %d blocks: %v", n, len(all), err)
	}
	const bytes = 500*3000 + 5*ipfs.LeafSize
	in, out := cli.Traffic(), srv.Traffic()
	if in.ReceivedBlocks != bytes || in.ReceivedWire == 0 || in.ReceivedWire > bytes/10 {
		t.Errorf("received %+v of %d bytes that compress well", in, bytes)
	}
	if out.SentBlocks != in.ReceivedBlocks || out.SentWire != in.ReceivedWire || out.ReceivedWire != 0 {
		t.Errorf("sent %+v, received %+v", out, in)
	}
	if got := info(cli, srv.ID()).BytesIn; got != bytes {
		t.Errorf("BytesIn = %d, want %d", got, bytes)
	}
}

// TestPublishedBlocksAreCompressedAhead puts blocks, and has them served as they were kept.
func TestPublishedBlocksAreCompressedAhead(t *testing.T) {
	kept := &keptForms{forms: map[cid.Cid]keptForm{}}
	srv := open(t, embedded.Config{Forms: kept}, ipfstest.NewMemory())
	small, large := ipfstest.Blocks(t, 10, 3000), ipfstest.Blocks(t, 6, 100_000)
	put(t, srv, append(small, large...)...)
	eventually(t, "compressing", func() bool { n, _ := kept.counts(); return n == len(large) })
	cli := open(t, embedded.Config{Peers: srv.Addrs()}, ipfstest.NewMemory())
	if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(large)); n != len(large) || err != nil {
		t.Fatalf("%d of %d blocks: %v", n, len(large), err)
	}
	if n, used := kept.counts(); n != len(large) || used != len(large) {
		t.Errorf("of %d forms %d were used", n, used)
	}
	if cli.Traffic().ReceivedBlocks != 600_000 {
		t.Errorf("received %+v", cli.Traffic())
	}
}

// TestSlowPeer fetches a list from two peers of which one takes its time, and finds that the
// other takes over, and that nearly nothing comes twice.
func TestSlowPeer(t *testing.T) {
	list := ipfstest.Blocks(t, 400, 20_000)
	server := ipfstest.NewMemory()
	put(t, server, list...)
	byDigest := map[string][]byte{}
	for _, b := range list {
		byDigest[string(b.Cid.Hash()[2:])] = b.Data
	}
	var served atomic.Int32
	slow := startBlockRogue(t, func(s network.Stream, first int, wants [][]byte) error {
		for i, digest := range wants {
			time.Sleep(20 * time.Millisecond)
			served.Add(1)
			if _, err := s.Write(rawFrame(first+i, byDigest[string(digest)])); err != nil {
				return err
			}
		}
		return nil
	})
	fast := open(t, embedded.Config{}, server)
	cli := open(t, embedded.Config{Peers: append(fast.Addrs(), addrOf(slow))}, ipfstest.NewMemory())
	waitConnected(t, cli, fast.ID())
	waitConnected(t, cli, slow.ID().String())
	if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(list)); n != len(list) || err != nil {
		t.Fatalf("%d of %d blocks: %v", n, len(list), err)
	}
	if n := served.Load(); n > 100 {
		t.Errorf("the slow peer had to send %d of %d blocks", n, len(list))
	}
	if got, all := cli.Traffic().ReceivedBlocks, uint64(400*20_000); got > all+all/4 {
		t.Errorf("%d bytes of blocks came for %d", got, all)
	}
}
