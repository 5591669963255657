package embedded_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// rogue is a peer that answers bitswap messages as its test says.
type rogue struct {
	host   host.Host
	answer func(wants []message.Entry) message.BitSwapMessage // nil: no answer
	fulls  atomic.Int32                                       // whole wantlists received
	send   func(context.Context, peer.ID, message.BitSwapMessage) error
}

func (r *rogue) ReceiveMessage(ctx context.Context, p peer.ID, msg message.BitSwapMessage) {
	if msg.Full() {
		r.fulls.Add(1)
	}
	if out := r.answer(msg.Wantlist()); out != nil && !out.Empty() {
		r.send(ctx, p, out)
	}
}
func (*rogue) ReceiveError(error)       {}
func (*rogue) PeerConnected(peer.ID)    {}
func (*rogue) PeerDisconnected(peer.ID) {}

func (r *rogue) addr() string {
	return r.host.Addrs()[0].String() + "/p2p/" + r.host.ID().String()
}

func startRogue(t *testing.T, answer func([]message.Entry) message.BitSwapMessage) *rogue {
	t.Helper()
	h, err := libp2p.New(libp2p.ListenAddrStrings(loopback), libp2p.DisableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	net := bsnet.NewFromIpfsHost(h)
	r := &rogue{host: h, answer: answer, send: net.SendMessage}
	net.Start(r)
	t.Cleanup(func() {
		net.Stop()
		h.Close()
	})
	return r
}

// wrongBytes answers each want with a block of its own making.
func wrongBytes(wants []message.Entry) message.BitSwapMessage {
	msg := message.New(false)
	for _, w := range wants {
		if !w.Cancel {
			msg.AddBlock(blocks.NewBlock([]byte("not what was asked for: " + w.Cid.String())))
		}
	}
	return msg
}

func TestWrongBytesAreNeverServedAndThePeerIsBanned(t *testing.T) {
	bad := startRogue(t, wrongBytes)
	store := ipfstest.NewMemory()
	cli := open(t, embedded.Config{Peers: []string{bad.addr()}, Timeout: 15 * time.Second}, store)
	id := bad.host.ID().String()
	waitConnected(t, cli, id)
	want := ipfstest.Blocks(t, 20, 1000)
	for _, b := range want[:3] {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if data, err := cli.Get(ctx, b.Cid); !errors.Is(err, ipfs.ErrNotFound) {
			t.Fatalf("Get from a hostile peer: %d bytes, %v", len(data), err)
		}
		cancel()
	}
	eventually(t, "the ban", func() bool { p := info(cli, id); return p.Banned && !p.Connected })
	if err := bad.host.Connect(t.Context(), peerInfo(t, cli)); err == nil {
		eventually(t, "the hang-up", func() bool { return !info(cli, id).Connected })
	}
	if store.Len() != 0 {
		t.Errorf("%d blocks stored", store.Len())
	}
}

func TestGoodPeerServesBesideHostileOne(t *testing.T) {
	for name, answer := range map[string]func([]message.Entry) message.BitSwapMessage{
		"WrongBytes": wrongBytes,
		"HaveAndNeverSend": func(wants []message.Entry) message.BitSwapMessage {
			msg := message.New(false)
			for _, w := range wants {
				if !w.Cancel {
					msg.AddHave(w.Cid)
				}
			}
			return msg
		},
		"Silent": func([]message.Entry) message.BitSwapMessage { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bad := startRogue(t, answer)
			server := ipfstest.NewMemory()
			want := ipfstest.Blocks(t, 800, 4000)
			put(t, server, want...)
			good := open(t, embedded.Config{}, server)
			cli := open(t, embedded.Config{Peers: append(good.Addrs(), bad.addr())}, ipfstest.NewMemory())
			waitConnected(t, cli, good.ID())
			waitConnected(t, cli, bad.host.ID().String())
			if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(want)); n != len(want) || err != nil {
				t.Fatalf("%d of %d blocks: %v", n, len(want), err)
			}
		})
	}
}

func peerInfo(t *testing.T, n *embedded.Node) peer.AddrInfo {
	t.Helper()
	info, err := peer.AddrInfoFromString(n.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	return *info
}

// TestHavesAlone has a block only with a peer that keeps it back.
func TestHavesAlone(t *testing.T) {
	bad := startRogue(t, func(wants []message.Entry) message.BitSwapMessage {
		msg := message.New(false)
		for _, w := range wants {
			msg.AddHave(w.Cid)
		}
		return msg
	})
	cli := open(t, embedded.Config{Peers: []string{bad.addr()}, Timeout: time.Second}, ipfstest.NewMemory())
	waitConnected(t, cli, bad.host.ID().String())
	if _, err := cli.Get(t.Context(), ipfstest.Blocks(t, 1, 100)[0].Cid); !errors.Is(err, ipfs.ErrNotFound) {
		t.Fatalf("Get = %v, want ErrNotFound", err)
	}
}

// keeper is a rogue that has some blocks, and remembers the wants it does not answer.
type keeper struct {
	*rogue
	mu    sync.Mutex
	wants map[cid.Cid]bool
	most  int
}

func startKeeper(t *testing.T, has []ipfs.Block) *keeper {
	t.Helper()
	k := &keeper{wants: map[cid.Cid]bool{}}
	have := map[cid.Cid][]byte{}
	for _, b := range has {
		have[b.Cid] = b.Data
	}
	k.rogue = startRogue(t, func(entries []message.Entry) message.BitSwapMessage {
		k.mu.Lock()
		defer k.mu.Unlock()
		msg := message.New(false)
		for _, e := range entries {
			switch data, ok := have[e.Cid]; {
			case e.Cancel:
				delete(k.wants, e.Cid)
			case ok:
				b, err := blocks.NewBlockWithCid(data, e.Cid)
				if err != nil {
					t.Error(err)
				}
				msg.AddBlock(b)
			case e.WantType == pb.Message_Wantlist_Block:
				k.wants[e.Cid] = true
			}
		}
		k.most = max(k.most, len(k.wants))
		return msg
	})
	return k
}

func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.wants)
}

// TestWindow counts the wants a peer is left with when it does not answer, and gets a
// block from it while a long list fills what is for long lists.
func TestWindow(t *testing.T) {
	list := ipfstest.Blocks(t, 3000, 500)
	has, last := list[:300], list[299]
	k := startKeeper(t, has)
	cli := open(t, embedded.Config{Peers: []string{k.addr()}, Timeout: time.Minute}, ipfstest.NewMemory())
	waitConnected(t, cli, k.host.ID().String())
	// After some small blocks, the window is one of wants and not of bytes.
	if n, err := fetchAll(t.Context(), cli, ipfstest.Cids(has[:299])); err != nil {
		t.Fatal(n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { fetchAll(ctx, cli, ipfstest.Cids(list[300:1500])) })
	eventually(t, "a full window of one list", func() bool { return k.count() == 464 })
	if _, err := cli.Get(t.Context(), last.Cid); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		wg.Go(func() { fetchAll(ctx, cli, ipfstest.Cids(list[1500+i*15:1500+i*15+15])) })
	}
	eventually(t, "a full window", func() bool { return k.count() == 512 })
	cancel()
	wg.Wait()
	eventually(t, "cancelling all", func() bool { return k.count() == 0 })
	if k.most > 512 {
		t.Errorf("%d wants at a peer at once, want at most 512", k.most)
	}
}
