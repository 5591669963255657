package embedded

import (
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/hinshun/ipcs/ipfs/routing"
)

// openRouters returns clients of the configured routers, which know the node by its key.
func openRouters(urls []string, h host.Host) ([]source, func(), error) {
	key := h.Peerstore().PrivKey(h.ID())
	var sources []source
	var clients []*routing.Client
	for _, url := range urls {
		addrs := reachable
		if routing.IsLocal(url) {
			addrs = host.Host.Addrs // who asks it is on this host as well, or does not dial them
		}
		c, err := routing.NewClient(url, key, func() []ma.Multiaddr { return addrs(h) })
		if err != nil {
			return nil, nil, err
		}
		clients = append(clients, c)
		sources = append(sources, source{router: c, name: FoundRouter, local: routing.IsLocal(url), every: announceEvery})
	}
	return sources, func() {
		for _, c := range clients {
			c.Close()
		}
	}, nil
}

// reachable are the addresses of h that others may dial: not those of its host or link alone.
func reachable(h host.Host) []ma.Multiaddr {
	return slices.DeleteFunc(slices.Clone(h.Addrs()), func(a ma.Multiaddr) bool { return checkFound(a, false) != nil })
}

// dialable returns those of addresses that others gave which may be dialled, maxFoundAddrs at most.
func dialable(addrs []ma.Multiaddr) []ma.Multiaddr { return dialableIf(addrs, false) }

// dialableIf is dialable, for a peer that may be on this host where local says so.
func dialableIf(addrs []ma.Multiaddr, local bool) []ma.Multiaddr {
	addrs = slices.DeleteFunc(slices.Clone(addrs), func(a ma.Multiaddr) bool { return checkFound(a, local) != nil })
	return addrs[:min(len(addrs), maxFoundAddrs)]
}

// Admits says whether the peer with this ID may be connected.
func (n *Node) Admits(id string) bool {
	p, err := peer.Decode(id)
	return err == nil && n.online != nil && n.online.book.admits(p)
}

// Hint names peers that an image says have it, as multiaddrs with /p2p/ID. They are dialled when
// blocks are wanted that nobody else has. Whoever makes an image names whom he likes: of
// what is not fit to be dialled nothing is, and of the others the first few. The error says what of
// them is not fit.
func (n *Node) Hint(addrs []string) error {
	if n.online == nil || !n.online.hints {
		return nil
	}
	taken := 0
	var bad error
	for _, s := range addrs {
		if taken == maxHintsOfImage {
			break
		}
		info, err := parseHint(s)
		if err != nil {
			bad = fmt.Errorf("peer %.200q that an image names is not dialled: %w", s, err)
			continue
		}
		taken++
		n.online.finder.add(info, FoundHint, false)
	}
	if taken > 0 && n.online.exchange.busy() {
		n.online.finder.lack(nil)
	}
	return bad
}
