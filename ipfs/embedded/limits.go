package embedded

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/protocol/identify"
	"github.com/libp2p/go-libp2p/x/rate"

	"github.com/hinshun/ipcs/ipfs/dht"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
)

// What one address, one peer and all together may take. Identities cost nothing, addresses do: so
// no address gets enough of anything to leave nothing to others.
const (
	// connsPerAddress bounds the connections from, and to, one IPv4 address or one IPv6 /56;
	// a /48 gets as many as four of these. Each peer has one; several may be behind one address.
	connsPerAddress = 12
	// connRate is how many new ones an address gets a second, after connBurst. The dialler, whose
	// dials count as well, makes two a second at most for long.
	connRate, connBurst = 4, 32
	// maxConns is where new connections are refused, half of each direction, and maxHandshakes
	// where those are that have not said yet who they are, which they have 15 s for.
	maxConns, maxHandshakes = 512, 64
	connsPerPeer            = 8

	// peerStreams is how many streams of a peer there may be in one direction. A bitswap server
	// opens one for each message, and may send some before the last was handled.
	peerStreams, allStreams = 80, 4096
	bitswapStreams          = 64
	// identifyStreams are short, and a peer needs one or two.
	identifyStreams = 8
	// peerMemory bounds the windows of a peer's streams: bytes that came and were not read. Each
	// stream has 256 KiB of it at least, and up to half is for streams that grow.
	peerMemory, allMemory = 32 << 20, 512 << 20
)

// bitswapProtocols are all versions.
func bitswapProtocols() []protocol.ID {
	return []protocol.ID{bsnet.ProtocolBitswap, bsnet.ProtocolBitswapOneOne, bsnet.ProtocolBitswapOneZero, bsnet.ProtocolBitswapNoVers}
}

// streams are limits of streams, n in each direction.
func streams(n rcmgr.LimitVal) rcmgr.ResourceLimits {
	return rcmgr.ResourceLimits{Streams: 2 * n, StreamsInbound: n, StreamsOutbound: n}
}

// resourceManager bounds connections, streams and what of them is buffered. Loopback is nobody's
// address: many peers may be there, and all are on this machine.
func resourceManager() (network.ResourceManager, error) {
	all, peer, transient := streams(allStreams), streams(peerStreams), streams(allStreams/2)
	all.Conns, all.ConnsInbound, all.ConnsOutbound = maxConns, maxConns/2, maxConns/2
	all.FD, all.Memory = maxConns, allMemory
	peer.Conns, peer.ConnsInbound, peer.ConnsOutbound = connsPerPeer, connsPerPeer/2, connsPerPeer
	peer.FD, peer.Memory = connsPerPeer, peerMemory
	transient.Conns, transient.ConnsInbound, transient.ConnsOutbound = 2*maxHandshakes, maxHandshakes, 2*maxHandshakes
	transient.FD, transient.Memory = 2*maxHandshakes, allMemory/8
	limits := rcmgr.PartialLimitConfig{
		System: all, Transient: transient, PeerDefault: peer,
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			identify.ID: streams(identifyStreams), identify.IDPush: streams(identifyStreams),
			// Of more than maxStreams the handler refuses the rest.
			transfer.ID: streams(2 * maxStreams), dht.Protocol: streams(dhtStreams), BlobsProtocol: streams(questionStreams),
		},
	}
	for _, id := range bitswapProtocols() {
		limits.ProtocolPeer[id] = streams(bitswapStreams)
		limits.Protocol[id] = streams(allStreams)
	}
	m, err := rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(limits.Build(rcmgr.DefaultLimits.Scale(0, 0))), // scaled to no machine: the same on all
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: connsPerAddress}, {PrefixLength: 48, ConnCount: 4 * connsPerAddress}},
		),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("127.0.0.0/8"), ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: netip.MustParsePrefix("::1/128"), ConnCount: math.MaxInt}},
		),
		rcmgr.WithConnRateLimiters(connRates()), rcmgr.WithMetricsDisabled())
	if err != nil {
		return nil, fmt.Errorf("libp2p resource manager: %w", err)
	}
	return m, nil
}

func connRates() *rate.Limiter {
	one, four := rate.Limit{RPS: connRate, Burst: connBurst}, rate.Limit{RPS: 4 * connRate, Burst: 4 * connBurst}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: netip.MustParsePrefix("127.0.0.0/8")}, {Prefix: netip.MustParsePrefix("::1/128")},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: one}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: one}, {PrefixLength: 48, Limit: four}},
		},
	}
}
