package embedded

import (
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

// partnerTime is how long ago a peer may have asked for something that is taken to want what this node wants, if it does not wait for
// what this node has not got.
const partnerTime = 5 * time.Second

// Partners returns the ID of this node, and those of peers that are getting something at the same time: they have
// asked this node for it, too.
func (n *Node) Partners() (self string, others []string) {
	if n.online == nil {
		return "", nil
	}
	return n.online.host.ID().String(), n.online.streams.askers(time.Now().Add(-partnerTime))
}

// asking is a stream that tells when its peer asks for something.
type asking struct {
	network.Stream
	tell func()
}

// Read implements io.Reader.
func (a asking) Read(p []byte) (int, error) {
	n, err := a.Stream.Read(p)
	if n > 0 {
		a.tell()
	}
	return n, err
}

func (b *blockStreams) asks(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.served[p] > 0 {
		b.asked[p] = time.Now()
	}
}

// askers are the peers that have asked for something since, or wait for news of something.
func (b *blockStreams) askers(since time.Time) (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := map[peer.ID]struct{}{}
	for p, asked := range b.asked {
		if asked.After(since) {
			at[p] = struct{}{}
		}
	}
	for _, s := range b.server.Waiting() {
		if s, ok := s.(asking); ok {
			at[s.Conn().RemotePeer()] = struct{}{}
		}
	}
	for p := range at {
		list = append(list, p.String())
	}
	return list
}
