package embedded

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// linkNode opens a node with a discovery that says what the test likes.
func linkNode(t *testing.T, net *memNet, h host.Host, d discovery, cfg Config) (n *Node, hear func(peer.AddrInfo)) {
	t.Helper()
	n, err := open(t.Context(), cfg, ipfstest.NewMemory(), world{
		host: func(Config, *peerBook) (host.Host, error) { return h, nil },
		link: func(_ host.Host, found func(peer.AddrInfo)) discovery { hear = found; return d },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n, hear
}

// TestLinkIsOffByDefault starts a discovery only where it is wanted, and where others can connect, once.
func TestLinkIsOffByDefault(t *testing.T) {
	net := newMemNet(t)
	loopback := func() host.Host {
		key, err := newIdentity()
		if err != nil {
			t.Fatal(err)
		}
		h, err := net.AddPeer(key, ma.StringCast("/ip4/127.0.0.1/tcp/4001"))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	for name, tt := range map[string]struct {
		host host.Host
		cfg  Config
		want int
	}{
		"Default":  {net.host(t), Config{}, 0},
		"On":       {net.host(t), Config{MDNS: true}, 1},
		"Loopback": {loopback(), Config{MDNS: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := new(silent)
			n, hear := linkNode(t, net, tt.host, d, tt.cfg)
			if err := errors.Join(n.Close(), n.Close()); err != nil {
				t.Fatal(err)
			}
			if d.started != tt.want || d.closed != tt.want || (hear != nil) != (tt.want > 0) {
				t.Errorf("started %d times, closed %d; want %d", d.started, d.closed, tt.want)
			}
		})
	}
}

// TestFoundOnTheLink reads a block from a node that was heard of, and ignores what is of this node itself.
func TestFoundOnTheLink(t *testing.T) {
	net := newMemNet(t)
	block := ipfstest.Blocks(t, 1, 1000)[0]
	has := ipfstest.NewMemory()
	if err := has.Put(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	other := net.node(t, Config{}, has)
	n, hear := linkNode(t, net, net.host(t), new(silent), Config{MDNS: true})
	own, theirs := n.online.host, other.online.host
	hear(peer.AddrInfo{ID: own.ID(), Addrs: own.Addrs()})
	if got := len(n.online.finder.found); got != 0 {
		t.Errorf("the node takes itself for %d others", got)
	}
	hear(peer.AddrInfo{ID: theirs.ID(), Addrs: theirs.Addrs()})
	if len(n.Connected()) > 0 {
		t.Error("it was dialled before anybody wanted anything")
	}
	if _, err := n.Get(t.Context(), block.Cid); err != nil {
		t.Fatal(err)
	}
	for _, p := range n.Peers() {
		if p.ID != other.ID() || p.Found != FoundMDNS {
			t.Errorf("found: %+v", p)
		}
	}
}

// TestFloodOnTheLink invents many peers, from many goroutines, also after the node was closed.
func TestFloodOnTheLink(t *testing.T) {
	net := newMemNet(t)
	n, hear := linkNode(t, net, net.host(t), new(silent), Config{MDNS: true})
	f := n.online.finder
	hint := peer.AddrInfo{ID: "named by an image", Addrs: []ma.Multiaddr{ma.StringCast("/ip4/10.9.9.9/tcp/4001")}}
	f.add(hint, FoundHint, false)
	flood := func(round int) {
		var wg sync.WaitGroup
		for i := range 5000 {
			wg.Go(func() {
				hear(peer.AddrInfo{ID: peer.ID(fmt.Sprint(round, i)), Addrs: []ma.Multiaddr{
					ma.StringCast("/ip4/127.0.0.1/tcp/22"), ma.StringCast("/ip4/10.0.0.9/tcp/4001"),
				}})
			})
		}
		wg.Wait()
	}
	flood(0)
	if got := len(f.found); got > maxFound+1 || got < 10 {
		t.Errorf("%d peers are known, of which %d may be of the link", got, maxFound)
	}
	for _, c := range f.found {
		if len(c.info.Addrs) != 1 {
			t.Errorf("to be dialled: %v", c.info.Addrs)
		}
	}
	if _, ok := f.found[hint.ID]; !ok {
		t.Error("what was heard took the place of what an image named")
	}
	if got := len(n.online.book.known()); got > maxFound+10 {
		t.Errorf("%d peers are on record: those that are worth it make room for invented ones", got)
	}
	hear(peer.AddrInfo{ID: hint.ID, Addrs: []ma.Multiaddr{ma.StringCast("/ip4/10.6.6.6/tcp/4001")}})
	if got := f.found[hint.ID].info.Addrs[0].String(); got != "/ip4/10.9.9.9/tcp/4001" {
		t.Errorf("what an image named is looked for at %s now", got)
	}
	before := len(f.found)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	flood(1)
	if len(f.found) != before {
		t.Error("peers were taken after the end")
	}
}

// deaf is a discovery that does not start.
type deaf struct{ silent }

func (*deaf) Start() error { return errors.New("no multicast here") }

// TestLinkThatFails has a node all the same.
func TestLinkThatFails(t *testing.T) {
	net := newMemNet(t)
	d := new(deaf)
	n, _ := linkNode(t, net, net.host(t), d, Config{MDNS: true})
	if _, err := n.Has(t.Context(), cid.Undef); err != nil {
		t.Error(err)
	}
	if err := n.Close(); err != nil || d.closed != 1 {
		t.Errorf("closed %d times, %v", d.closed, err)
	}
}
