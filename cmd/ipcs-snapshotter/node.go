package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/metrics"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// A node is what the daemon needs of its IPFS node: the one in this process, or Kubo.
type node interface {
	ipfs.Node
	kubo.Identity
	// Cache keeps blocks on this machine that came from elsewhere.
	Cache(ctx context.Context, blocks ...ipfs.Block) error
	// Connect dials a peer, once: addr is a multiaddr with /p2p/ID.
	Connect(ctx context.Context, addr string) error
	// Hint names peers that an image says have it.
	Hint(addrs []string) error
	// Admits says whether others may be told of the peer with this ID.
	Admits(id string) bool
	// peers are who blocks come from.
	peers() []peerStatus
	// traffic counts what went over the protocol of ipcs nodes.
	traffic() metrics.Transfer
	// away says why nothing can be had of the node, if that is so.
	away() error
}

// openNode opens the node that is configured, and what tells peers of its blobs.
func (p *parts) openNode(ctx context.Context, cfg config, log *slog.Logger) (node, error) {
	timeout := time.Duration(cfg.Node.Timeout)
	if err := p.openMirror(cfg, log); err != nil {
		return nil, err
	}
	if cfg.Node.Kubo == "" {
		n, err := embedded.Open(ctx, embedded.Config{
			Listen:   cfg.Node.Listen,
			Peers:    cfg.Node.Peers,
			Allow:    cfg.Node.Allow,
			Routers:  cfg.Node.Routers,
			DHT:      cfg.Node.DHT,
			MDNS:     cfg.Node.MDNS,
			NoHints:  !cfg.Node.Hints,
			Roots:    p.layerRoots(log),
			Keys:     p.mirror.Keys,
			Blobs:    p.mirror.Lookup,
			Withheld: p.mirror.Withheld,
			KeyFile:  filepath.Join(cfg.Root, "identity.key"),
			SwarmKey: cfg.Node.SwarmKey,
			Timeout:  timeout,
			Forms:    p.forms(),
			Logger:   log,
		}, p.store)
		if err != nil {
			return nil, err
		}
		return embeddedNode{n}, nil
	}
	if pins, err := p.store.Pins(ctx, ""); err != nil {
		return nil, err
	} else if len(pins) > 0 {
		log.Warn("images were converted or committed here before Kubo was this daemon's node: Kubo does not have them, and no other machine gets them from here; convert them again, or take node.kubo out", "pins", len(pins))
	}
	n, err := kubo.Open(ctx, kubo.Config{Addr: cfg.Node.Kubo, Timeout: timeout, Logger: log}, p.store)
	if err != nil {
		return nil, err
	}
	return kuboNode{n}, nil
}

type embeddedNode struct{ *embedded.Node }

func (n embeddedNode) peers() []peerStatus {
	var list []peerStatus
	for _, p := range n.Peers() {
		list = append(list, peerStatus{ID: p.ID, Addr: p.Addr, Connected: p.Connected, Found: string(p.Found), BytesIn: p.BytesIn, Banned: p.Banned})
	}
	return list
}

func (n embeddedNode) traffic() metrics.Transfer { return metrics.Transfer(n.Traffic()) }

func (embeddedNode) away() error { return nil } // what it has not got may come later

// A kuboNode gets everything from Kubo, which is so the only peer.
type kuboNode struct{ *kubo.Node }

func (n kuboNode) peers() []peerStatus {
	return []peerStatus{{ID: kubo.Peer, Addr: n.Addr(), Connected: n.away() == nil, BytesIn: n.Received()}}
}

func (kuboNode) traffic() metrics.Transfer { return metrics.Transfer{} }

func (n kuboNode) away() error { return n.State().Err }

// Hint does nothing: whom Kubo connects to is for its configuration to say, not for images.
func (kuboNode) Hint([]string) error { return nil }

// Admits leaves it to Kubo whom it refuses.
func (kuboNode) Admits(string) bool { return true }

// kuboStatus is what is known of the Kubo that is this daemon's node.
type kuboStatus struct {
	API       string   `json:"api"`             // address of its RPC
	Agent     string   `json:"agent"`           // its version, as it says it
	Connected []string `json:"connected"`       // its peers
	Error     string   `json:"error,omitempty"` // why it does not answer; the rest is of before
}

func (n kuboNode) status() *kuboStatus {
	seen := n.State()
	s := &kuboStatus{API: n.Addr(), Agent: seen.Agent, Connected: append([]string{}, seen.Connected...)}
	if seen.Err != nil {
		s.Error = seen.Err.Error()
	}
	return s
}

// line is what is shown of it.
func (s kuboStatus) line() string {
	if s.Error != "" {
		return fmt.Sprintf("Kubo at %s does not answer: what is not on this disk cannot be read (%s)", s.API, s.Error)
	}
	return fmt.Sprintf("Kubo (%s) at %s, peers: %d", strings.TrimSuffix(s.Agent, "/"), s.API, len(s.Connected))
}

// checkKubo refuses an address that leads nowhere, and settings that are Kubo's own.
func (c config) checkKubo() error {
	if c.Node.Kubo == "" {
		return nil
	}
	if _, err := kubo.New(c.Node.Kubo); err != nil {
		return fmt.Errorf("configuration: node.kubo: %w", err)
	}
	if strings.TrimPrefix(strings.TrimPrefix(c.Node.Kubo, "/unix"), "unix://") == c.apiSocket() {
		return errors.New("configuration: node.kubo is this daemon's own socket: give Kubo's address")
	}
	for _, own := range []struct {
		setting string
		given   bool
		instead string
	}{
		{"node.listen", len(c.Node.Listen) > 0, "Addresses.Swarm of Kubo's configuration says where it listens"},
		{"node.peers", len(c.Node.Peers) > 0, "Peering.Peers of Kubo's configuration says whom it stays connected to"},
		{"node.allow", len(c.Node.Allow) > 0, "Swarm.AddrFilters and a swarm.key of Kubo say who may connect"},
		{"node.routers", len(c.Node.Routers) > 0, "Routing of Kubo's configuration says by whom it finds nodes"},
		{"node.dht", c.Node.DHT, "Routing of Kubo's configuration says by whom it finds nodes"},
		{"node.mdns", c.Node.MDNS, "Discovery.MDNS of Kubo's configuration says whether it looks for nodes on its links"},
		{"node.swarm_key", c.Node.SwarmKey != "", "put the key into Kubo's repository, as swarm.key"},
	} {
		if own.given {
			return fmt.Errorf("configuration: %s is of this daemon's own node, and with node.kubo it has none: %s; take out one of the two", own.setting, own.instead)
		}
	}
	return nil
}
