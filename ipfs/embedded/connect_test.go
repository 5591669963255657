package embedded_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestConnect dials a peer that nobody has configured, and gets a block from it.
func TestConnect(t *testing.T) {
	store := ipfstest.NewMemory()
	server := open(t, embedded.Config{}, store)
	client := open(t, embedded.Config{}, ipfstest.NewMemory())
	b := ipfstest.Blocks(t, 1, 1000)[0]
	put(t, store, b)
	for range 2 { // connected once, it stays so
		if err := client.Connect(t.Context(), server.Addrs()[0]); err != nil {
			t.Fatal(err)
		}
	}
	if !info(client, server.ID()).Connected {
		t.Errorf("not connected after Connect: %+v", client.Peers())
	}
	if _, err := client.Get(t.Context(), b.Cid); err != nil {
		t.Error(err)
	}
}

func TestConnectFails(t *testing.T) {
	gone := open(t, embedded.Config{}, ipfstest.NewMemory())
	addr, id := gone.Addrs()[0], gone.ID()
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	other := open(t, embedded.Config{}, ipfstest.NewMemory())
	impostor, _, _ := strings.Cut(other.Addrs()[0], "/p2p/")
	for what, test := range map[string]struct{ addr, want string }{
		"nobody listens":  {addr, "refused"},
		"no ID":           {"/ip4/127.0.0.1/tcp/4001", "should look like"},
		"nonsense":        {"nonsense", "should look like"},
		"another peer":    {impostor + "/p2p/" + id, "peer id mismatch"},
		"no address":      {"/p2p/" + id, "no addresses"},
		"other transport": {"/ip4/127.0.0.1/udp/4001/quic-v1/p2p/" + id, "no transport"},
	} {
		t.Run(what, func(t *testing.T) {
			node := open(t, embedded.Config{}, ipfstest.NewMemory()) // which knows no addresses yet
			wantRefused(t, node, test.addr, test.want)
		})
	}
	wantRefused(t, embedded.Offline(ipfstest.NewMemory()), addr, "offline")
	wantRefused(t, other, other.Addrs()[0], "itself")
}

func wantRefused(t *testing.T, node *embedded.Node, addr, want string) {
	t.Helper()
	err := node.Connect(t.Context(), addr)
	if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), addr) {
		t.Errorf("Connect(%s) = %v, want %q", addr, err, want)
	}
}

// TestConnectToBanned does not dial a peer that has sent wrong blocks.
func TestConnectToBanned(t *testing.T) {
	bad := startRogue(t, wrongBytes)
	node := open(t, embedded.Config{Peers: []string{bad.addr()}}, ipfstest.NewMemory())
	id := bad.host.ID().String()
	waitConnected(t, node, id)
	for _, b := range ipfstest.Blocks(t, 3, 1000) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := node.Get(ctx, b.Cid)
		cancel()
		if !errors.Is(err, ipfs.ErrNotFound) {
			t.Fatal(err)
		}
	}
	eventually(t, "the ban", func() bool { return info(node, id).Banned })
	if err := node.Connect(t.Context(), bad.addr()); err == nil || !strings.Contains(err.Error(), "banned") {
		t.Errorf("Connect to a banned peer: %v", err)
	}
}
