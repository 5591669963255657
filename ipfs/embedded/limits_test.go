package embedded

import (
	"fmt"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
)

// TestOneAddressLeavesConnectionsToOthers opens connections from one address until there are no
// more for it: others get theirs, what was closed comes back, and loopback is nobody's address.
func TestOneAddressLeavesConnectionsToOthers(t *testing.T) {
	for name, of := range map[string]struct {
		addr  string // with its port
		other string
		most  int // 0: more than are tried
	}{
		"IPv4":          {"/ip4/192.0.2.7/tcp/%d", "/ip4/192.0.2.8/tcp/1", connsPerAddress},
		"an IPv6 /56":   {"/ip6/2001:db8::%x/tcp/1", "/ip6/2001:db8:1::1/tcp/1", connsPerAddress},
		"loopback":      {"/ip4/127.0.0.1/tcp/%d", "/ip4/192.0.2.7/tcp/1", 0},
		"IPv6 loopback": {"/ip6/::1/tcp/%d", "/ip4/192.0.2.7/tcp/1", 0},
	} {
		t.Run(name, func(t *testing.T) {
			const tried = 30 // below the burst of new ones
			m, err := resourceManager()
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			open := func(addr string) (network.ConnManagementScope, error) {
				return m.OpenConnection(network.DirInbound, true, ma.StringCast(addr))
			}
			var got []network.ConnManagementScope
			for i := range tried {
				if c, err := open(fmt.Sprintf(of.addr, i+1)); err == nil {
					got = append(got, c)
				}
			}
			want := of.most
			if want == 0 {
				want = tried
			}
			if len(got) != want {
				t.Fatalf("%d connections of %d, want %d", len(got), tried, want)
			}
			if _, err := open(of.other); err != nil {
				t.Errorf("another address gets none: %v", err)
			}
			got[0].Done()
			if _, err := open(fmt.Sprintf(of.addr, 1)); err != nil {
				t.Errorf("none in place of one that was closed: %v", err)
			}
		})
	}
}
