package embedded

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// memNet is a network in memory. Nothing in it is on a socket.
type memNet struct {
	mocknet.Mocknet
	peers int
}

func newMemNet(t *testing.T) *memNet {
	t.Helper()
	net := &memNet{Mocknet: mocknet.New()}
	t.Cleanup(func() { net.Close() })
	return net
}

// host adds a host at an address of a private network. All can reach it.
func (m *memNet) host(t *testing.T) host.Host {
	t.Helper()
	key, err := newIdentity()
	if err != nil {
		t.Fatal(err)
	}
	m.peers++
	h, err := m.AddPeer(key, ma.StringCast(fmt.Sprintf("/ip4/10.0.0.%d/tcp/4001", m.peers)))
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range m.Peers() {
		if _, err := m.LinkPeers(h.ID(), other); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// silent is a discovery that hears of nobody.
type silent struct{ started, closed int }

func (s *silent) Start() error { s.started++; return nil }
func (s *silent) Close() error { s.closed++; return nil }

// node opens a node on a host of the network, in a network that is as good as private, with the peers named.
func (m *memNet) node(t *testing.T, cfg Config, store Store, peers ...host.Host) *Node {
	t.Helper()
	h := m.host(t)
	for _, p := range peers {
		cfg.Peers = append(cfg.Peers, fmt.Sprintf("%s/p2p/%s", p.Addrs()[0], p.ID()))
	}
	if testing.Verbose() {
		cfg.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	if store == nil {
		store = ipfstest.NewMemory()
	}
	cfg.SwarmKey = "the host has none"
	n, err := open(t.Context(), cfg, store, world{
		host: func(Config, *peerBook) (host.Host, error) { return h, nil },
		link: func(host.Host, func(peer.AddrInfo)) discovery { return &silent{} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// soon waits for something that other goroutines bring about.
func soon(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
	}
}
