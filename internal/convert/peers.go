package convert

import (
	"fmt"

	"github.com/hinshun/ipcs/layer"
	ma "github.com/multiformats/go-multiaddr"
)

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
