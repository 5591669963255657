package embedded_test

import (
	"context"
	"errors"
	"sync"
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
	send   func(context.Context, peer.ID, message.BitSwapMessage) error
}

func (r *rogue) ReceiveMessage(ctx context.Context, p peer.ID, msg message.BitSwapMessage) {
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

// TestWindow counts the wants a peer is left with when it answers none.
func TestWindow(t *testing.T) {
	var mu sync.Mutex
	wants, most := map[cid.Cid]bool{}, 0
	p := startRogue(t, func(entries []message.Entry) message.BitSwapMessage {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range entries {
			if e.Cancel {
				delete(wants, e.Cid)
			} else if e.WantType == pb.Message_Wantlist_Block {
				wants[e.Cid] = true
			}
		}
		most = max(most, len(wants))
		return nil
	})
	cli := open(t, embedded.Config{Peers: []string{p.addr()}, Timeout: time.Minute}, ipfstest.NewMemory())
	waitConnected(t, cli, p.host.ID().String())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	all := ipfstest.Cids(ipfstest.Blocks(t, 3000, 50))
	for i := range 100 {
		wg.Go(func() { fetchAll(ctx, cli, all[i*30:i*30+30]) })
	}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(wants) }
	eventually(t, "a full window", func() bool { return count() >= 100 })
	cancel()
	wg.Wait()
	eventually(t, "cancelling all", func() bool { return count() == 0 })
	if most > 512 {
		t.Errorf("%d wants at a peer at once, want at most 512", most)
	}
}
