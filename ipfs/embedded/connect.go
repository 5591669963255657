package embedded

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// Connect dials a peer, once, unless it is connected: addr is a multiaddr with /p2p/ID. The
// peer is asked for blocks as others are, as long as the connection lasts; it does not become
// a configured one, and nobody dials it again.
func (n *Node) Connect(ctx context.Context, addr string) error {
	if n.online == nil {
		return fmt.Errorf("connect to %s: this node is offline", addr)
	}
	infos, err := parsePeers([]string{addr})
	if err != nil {
		return err
	}
	if err := n.online.connect(ctx, infos[0]); err != nil {
		return fmt.Errorf("connect to %s: %w", addr, err)
	}
	return nil
}

func (o *online) connect(ctx context.Context, p peer.AddrInfo) error {
	if p.ID == o.host.ID() {
		return errors.New("that is this node itself")
	}
	if ban := o.book.bannedFor(p.ID); ban > 0 {
		return fmt.Errorf("the peer is banned for another %s: it sent blocks that nobody wanted", ban.Round(time.Second))
	}
	if s, ok := o.host.Network().(*swarm.Swarm); ok { // as the dialler does: somebody asks for it now
		s.Backoff().Clear(p.ID)
	}
	defer o.book.allowDial(p.ID)()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := o.host.Connect(ctx, p); err != nil {
		return errors.New(oneLine(err))
	}
	return nil
}

// oneLine puts libp2p's dial errors, which have a line for each address, into one.
func oneLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, " ")
}
