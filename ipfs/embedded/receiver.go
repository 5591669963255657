package embedded

import (
	"context"
	"sync"

	"github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/server"
	"github.com/libp2p/go-libp2p/core/peer"
)

// receiver gives each message to both halves of bitswap. After close it gives
// nothing, and nothing is under way.
type receiver struct {
	exchange *exchange
	server   *server.Server

	mu     sync.RWMutex // held for reading while a message is handled
	closed bool
}

// ReceiveMessage implements bitswap's network.Receiver.
func (r *receiver) ReceiveMessage(ctx context.Context, p peer.ID, msg message.BitSwapMessage) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.closed || r.exchange.book.bannedFor(p) > 0 {
		return
	}
	r.exchange.received(ctx, p, msg)
	if msg.Full() || len(msg.Wantlist()) > 0 {
		r.server.ReceiveMessage(ctx, p, msg)
	}
}

// ReceiveError implements bitswap's network.Receiver. The stream is gone; a want that
// was to be answered on it is asked for again.
func (r *receiver) ReceiveError(error) {}

// PeerConnected implements bitswap's network.Receiver.
func (r *receiver) PeerConnected(p peer.ID) {
	r.exchange.connected(p)
	r.server.PeerConnected(p)
}

// PeerDisconnected implements bitswap's network.Receiver.
func (r *receiver) PeerDisconnected(p peer.ID) {
	r.exchange.disconnected(p)
	r.server.PeerDisconnected(p)
}

func (r *receiver) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
}
