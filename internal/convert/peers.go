package convert

import (
	"fmt"
	"strings"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// maxOwnPeers is how many addresses of the node go into an image that was told of none: as many as
// are taken of one.
const maxOwnPeers = 8

// CheckPeers checks that peers can stand in an image record: multiaddrs that end in the
// peer's identity, without which a peer could be anybody.
func CheckPeers(peers []string) error {
	if len(peers) > layer.MaxImagePeers {
		return fmt.Errorf("%d peers: at most %d fit into an image", len(peers), layer.MaxImagePeers)
	}
	for _, p := range peers {
		addr, err := ma.NewMultiaddr(p)
		if err != nil {
			return fmt.Errorf("peer %q: %w", p, err)
		}
		if _, err := addr.ValueForProtocol(ma.P_P2P); err != nil {
			return fmt.Errorf("peer %q: want a multiaddr with /p2p/ID at its end", p)
		}
	}
	return nil
}

// OwnPeers are those addresses of a node that others may reach it at: TCP, and not of its host or
// its link alone.
func OwnPeers(addrs []string) []string {
	var own []string
	for _, s := range addrs {
		addr, err := ma.NewMultiaddr(s)
		if err != nil || len(addr) != 3 || addr[1].Protocol().Code != ma.P_TCP || addr[2].Protocol().Code != ma.P_P2P {
			continue
		}
		if ip, err := manet.ToIP(addr); err == nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() || ip.IsMulticast()) {
			continue
		}
		if len(own) < maxOwnPeers {
			own = append(own, s)
		}
	}
	return own
}

// peersAnnotation names the first peers, as many as fit into it.
func peersAnnotation(peers []string) string {
	var list []string
	size := 0
	for _, p := range peers {
		if size += len(p) + 1; size > mediatype.MaxPeersAnnotation {
			break
		}
		list = append(list, p)
	}
	return strings.Join(list, ",")
}
