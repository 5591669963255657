package embedded

import (
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
)

// mdnsService is what ipcs nodes look for. Other libp2p programs have another.
const mdnsService = "_ipcs._udp"

// newMDNS returns what tells of a host on its links and calls found, in any goroutine, for each other one that it
// hears of.
func newMDNS(h host.Host, found func(peer.AddrInfo)) discovery {
	return mdns.NewMdnsService(h, mdnsService, notifee(found))
}

type notifee func(peer.AddrInfo)

// HandlePeerFound implements mdns.Notifee.
func (f notifee) HandlePeerFound(p peer.AddrInfo) { f(p) }
