package embedded

import (
	"fmt"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

const somePeer = "/p2p/12D3KooWKAAkJfJgxpnpVBpQsMXQDtcyBEYQhT3WGYZjQVNtkGuK"

// hintsOfImages says which addresses an image may have dialled.
var hintsOfImages = map[string]bool{
	"/ip4/10.0.0.1/tcp/4001":                 true,
	"/ip6/2001:db8::1/tcp/4001":              true,
	"/dns4/example.org/tcp/1024":             true,
	"/ip4/127.0.0.1/tcp/4001":                false,
	"/ip4/127.9.9.9/tcp/4001":                false,
	"/ip6/::1/tcp/4001":                      false,
	"/ip6/::ffff:127.0.0.1/tcp/4001":         false,
	"/ip4/0.0.0.0/tcp/4001":                  false,
	"/ip6/::/tcp/4001":                       false,
	"/ip4/169.254.169.254/tcp/8080":          false, // where clouds tell secrets
	"/ip6/fe80::1/tcp/4001":                  false,
	"/ip4/224.0.0.1/tcp/4001":                false,
	"/ip4/255.255.255.255/tcp/4001":          false,
	"/ip4/10.0.0.1/tcp/22":                   false,
	"/ip4/10.0.0.1/tcp/1023":                 false,
	"/ip4/10.0.0.1/udp/4001/quic-v1":         false,
	"/ip4/10.0.0.1/tcp/4001/ws":              false,
	"/dnsaddr/example.org/tcp/4001":          false,
	"/dnsaddr/example.org":                   false,
	"/unix/run/docker.sock":                  false,
	"/ip4/10.0.0.1/tcp/4001/p2p-circuit":     false,
	"/ip4/10.0.0.1":                          false,
	"/ip4/10.0.0.1/tcp/4001/tls/http":        false,
	"/ip6zone/eth0/ip6/2001:db8::1/tcp/4001": false,
}

func TestHintsThatAreDialled(t *testing.T) {
	for addr, want := range hintsOfImages {
		if _, err := parseHint(addr + somePeer); (err == nil) != want {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, s := range []string{"", "10.0.0.1:4001", "/ip4/10.0.0.1/tcp/4001", "/ip4/10.0.0.1/tcp/4001/p2p/nobody"} {
		if _, err := parseHint(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// TestNamesLeadNowhereElse resolves the name of a peer that was found to addresses that nobody may
// have dialled, as those in the peer's own list are checked.
func TestNamesLeadNowhereElse(t *testing.T) {
	configured := peer.AddrInfo{ID: "configured", Addrs: []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/1")}}
	b := newPeerBook(0, []peer.AddrInfo{configured}, nil)
	b.setFound("hinted", FoundHint, false)
	b.setFound("of a router here", FoundRouter, true)
	for p, want := range map[peer.ID]map[string]bool{
		"hinted":           {"/ip4/127.0.0.1/tcp/4001": false, "/ip4/169.254.169.254/tcp/80": false, "/ip4/10.0.0.1/tcp/4001": true},
		"of a router here": {"/ip4/127.0.0.1/tcp/4001": true, "/ip4/169.254.169.254/tcp/80": false},
		"configured":       {"/ip4/127.0.0.1/tcp/4001": true},
	} {
		for addr, may := range want {
			if got := b.InterceptAddrDial(p, ma.StringCast(addr)); got != may {
				t.Errorf("%s at %s: %v", p, addr, got)
			}
		}
	}
}

// TestHintsAreBounded names many peers in many images.
func TestHintsAreBounded(t *testing.T) {
	n, err := Open(t.Context(), Config{}, ipfstest.NewMemory())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	hints := func(images, each int) (list []string) {
		for range images * each {
			key, err := newIdentity()
			if err != nil {
				t.Fatal(err)
			}
			id, err := peer.IDFromPrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, fmt.Sprintf("/ip4/10.0.0.1/tcp/4001/p2p/%s", id))
		}
		return list
	}
	if err := n.Hint(hints(1, 20)); err != nil || len(n.online.finder.found) != maxHintsOfImage {
		t.Errorf("%d peers of one image, %v", len(n.online.finder.found), err)
	}
	for range 20 {
		if err := n.Hint(hints(1, 8)); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(n.online.finder.found); got != maxFound {
		t.Errorf("%d peers of many images, want %d", got, maxFound)
	}
	if err := n.Hint([]string{"/ip4/127.0.0.1/tcp/4001" + somePeer}); err == nil || !strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("a hint that is not dialled: %v", err)
	}
	n.online.hints = false
	n.online.finder.found = map[peer.ID]*candidate{}
	if err := n.Hint(hints(1, 1)); err != nil || len(n.online.finder.found) != 0 {
		t.Errorf("hints are off: %v", err)
	}
}

// FuzzHint has nothing dialled but TCP to another host.
func FuzzHint(f *testing.F) {
	for addr := range hintsOfImages {
		f.Add(addr + somePeer)
	}
	f.Fuzz(func(t *testing.T, s string) {
		info, err := parseHint(s)
		if err != nil {
			return
		}
		if len(info.Addrs) != 1 || info.ID == "" || checkFound(info.Addrs[0], false) != nil {
			t.Errorf("%q is %v", s, info)
		}
	})
}
