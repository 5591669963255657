package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hinshun/ipcs/ipfs/dht"
)

const (
	// maxDHTMessage is more than nodes with the bounds of package dht send: 21 closer peers with 8 KiB of addresses, and
	// those of 288 providers. maxDHTPeers may be in one, with maxParts addresses together.
	maxDHTMessage, maxDHTPeers = 512 << 10, 512
	// dhtStreams is how many streams of the DHT there may be with a peer in one direction; an honest one needs one.
	dhtStreams = 8
	// dhtWrite is how long a peer may take to read a message of the DHT.
	dhtWrite = 10 * time.Second
	// dhtEvery is how often the DHT is told all that is here; see dht.Validity.
	dhtEvery = 10 * time.Minute
)

var errOpenDHT = errors.New("a DHT is for networks that strangers cannot join: give a private network key or a list of the peers that are allowed as well")

// dhtHost is what the DHT sees of libp2p. kad-dht decodes messages of any number of parts, writes without deadlines,
// has what it hears of dialled, as many at a time as it likes, and keeps connections of nodes that nobody has
// configured. Through a dhtHost it reads whole messages that are fit to be decoded, a peer has dhtWrite to read one, few
// are dialled at a time, each for dialTimeout, and all connections are as good as those of other strangers.
type dhtHost struct {
	host.Host
	book  *peerBook
	room  *messageRoom
	dials chan struct{} // has a place for each that may be under way

	mu      sync.Mutex
	streams map[network.Stream]struct{} // that peers have opened
	closed  bool
	wg      sync.WaitGroup // of their handlers
}

// dhtNode is this node's part of a DHT with its host.
type dhtNode struct {
	*dht.DHT
	host *dhtHost
}

// openDHT takes part in the DHT, as a server if others can connect.
func openDHT(h host.Host, book *peerBook, room *messageRoom) (*dhtNode, error) {
	own := &dhtHost{Host: h, book: book, room: room, dials: make(chan struct{}, parallelDials), streams: map[network.Stream]struct{}{}}
	d, err := dht.New(own, dht.Config{Server: isReachable(h), Admits: book.admits, Usable: dialable})
	if err != nil {
		return nil, err
	}
	return &dhtNode{d, own}, nil
}

// close ends what the DHT does, and waits for it, and for what peers have asked.
func (n *dhtNode) close() error {
	err := n.Close()
	n.host.shut()
	return err
}

// isReachable says whether a host listens on an address that is not of this machine alone.
func isReachable(h host.Host) bool {
	return slices.ContainsFunc(h.Network().ListenAddresses(), func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
}

// SetStreamHandler implements host.Host.
func (h *dhtHost) SetStreamHandler(id protocol.ID, handle network.StreamHandler) {
	h.Host.SetStreamHandler(id, func(s network.Stream) {
		if !h.begin(s) {
			_ = s.Reset()
			return
		}
		defer h.end(s)
		m := newMessages(s, maxDHTMessage, checkDHTMessage, h.room)
		defer m.letGo()
		handle(timely{m})
	})
}

func (h *dhtHost) begin(s network.Stream) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.streams[s] = struct{}{}
	h.wg.Add(1)
	return true
}

func (h *dhtHost) end(s network.Stream) {
	h.mu.Lock()
	delete(h.streams, s)
	h.mu.Unlock()
	h.wg.Done()
}

// shut ends what peers have opened, takes no more, and waits for the handlers.
func (h *dhtHost) shut() {
	h.Host.RemoveStreamHandler(dht.Protocol)
	h.mu.Lock()
	h.closed = true
	for s := range h.streams {
		_ = s.Reset()
	}
	h.mu.Unlock()
	h.wg.Wait()
}

// NewStream implements host.Host. It dials nobody: that is for Connect.
func (h *dhtHost) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := h.Host.NewStream(network.WithNoDial(ctx, "the DHT connects before"), p, ids...)
	if err != nil {
		return nil, err
	}
	return timely{newMessages(s, maxDHTMessage, checkDHTMessage, nil)}, nil
}

// Connect implements host.Host.
func (h *dhtHost) Connect(ctx context.Context, p peer.AddrInfo) error {
	if h.Network().Connectedness(p.ID) == network.Connected {
		return nil
	}
	select {
	case h.dials <- struct{}{}:
		defer func() { <-h.dials }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := h.Host.Connect(ctx, p); err != nil {
		return err
	}
	h.book.noteFound(p.ID, FoundDHT)
	return nil
}

// ConnManager implements host.Host.
func (h *dhtHost) ConnManager() connmgr.ConnManager { return &connmgr.NullConnMgr{} }

// timely is a stream to which a message is written in time or not at all.
type timely struct{ *messages }

func (s timely) Write(b []byte) (int, error) {
	if err := s.SetWriteDeadline(time.Now().Add(dhtWrite)); err != nil {
		return 0, err
	}
	return s.Stream.Write(b)
}

// checkDHTMessage counts the peers of a message of the DHT, and their addresses, without decoding them.
func checkDHTMessage(b []byte) error {
	const closer, providers, addrs = 8, 9, 2
	peers, err := countFields(b, closer, providers)
	if err != nil {
		return err
	}
	if peers > maxDHTPeers {
		return fmt.Errorf("%w: of %d peers, at most %d are allowed", errMessage, peers, maxDHTPeers)
	}
	all := 0
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		b = b[n:] // countFields has gone through all
		n = protowire.ConsumeFieldValue(num, typ, b)
		if (num == closer || num == providers) && typ == protowire.BytesType {
			p, _ := protowire.ConsumeBytes(b)
			count, err := countFields(p, addrs)
			if err != nil {
				return err
			}
			all += count
		}
		b = b[n:]
	}
	if all > maxParts {
		return fmt.Errorf("%w: of %d addresses, at most %d are allowed", errMessage, all, maxParts)
	}
	return nil
}
