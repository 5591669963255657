package embedded

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
)

const (
	dialTimeout = 5 * time.Second
	// keepAlive finds connections whose other end is gone without a word, so that a
	// machine that crashed and came back is dialled again and not waited for.
	keepAlive = 10 * time.Second
	// Above highPeers connections, those that are not configured are closed down to
	// lowPeers. See also maxConns.
	lowPeers, highPeers = 128, 256
	userAgent           = "ipcs"
)

// newHost starts libp2p with one transport, one security, one muxer, and none of
// the services that find or tell anything.
func newHost(cfg Config, book *peerBook) (host.Host, error) {
	key, err := loadIdentity(cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	limits, err := resourceManager()
	if err != nil {
		return nil, err
	}
	conns, err := connmgr.NewConnManager(lowPeers, highPeers, connmgr.WithGracePeriod(20*time.Second))
	if err != nil {
		return nil, fmt.Errorf("libp2p connection manager: %w", err)
	}
	mux := *yamux.DefaultTransport
	mux.KeepAliveInterval = keepAlive
	listen := libp2p.ListenAddrStrings(cfg.Listen...)
	if len(cfg.Listen) == 0 {
		listen = libp2p.NoListenAddrs
	}
	opts := []libp2p.Option{
		libp2p.Identity(key), listen, libp2p.UserAgent(userAgent),
		libp2p.Transport(tcp.NewTCPTransport, tcp.DisableReuseport()),
		libp2p.Security(noise.ID, noise.New), libp2p.Muxer(yamux.ID, &mux),
		libp2p.ResourceManager(limits), libp2p.ConnectionManager(conns), libp2p.ConnectionGater(book),
		libp2p.WithDialTimeout(dialTimeout), libp2p.DisableRelay(), libp2p.Ping(false),
		libp2p.DisableIdentifyAddressDiscovery(), libp2p.DisableMetrics(),
	}
	if cfg.SwarmKey != "" {
		psk, err := loadSwarmKey(cfg.SwarmKey)
		if err != nil {
			return nil, err
		}
		opts = append(opts, libp2p.PrivateNetwork(psk))
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("start libp2p on %q: %w", cfg.Listen, err)
	}
	return h, nil
}
