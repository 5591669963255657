package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/hinshun/ipcs/ipfs/routing"
)

// layerRoots returns a function that names the layers that are pinned here, or used by snapshots:
// what others are told of.
func (p *parts) layerRoots(log *slog.Logger) func(context.Context) []cid.Cid {
	return func(ctx context.Context) []cid.Cid {
		seen := make(map[cid.Cid]bool)
		if snaps := p.asked.Load(); snaps != nil {
			for _, root := range snaps.LayerRoots() {
				seen[root] = true
			}
		}
		pins, err := p.store.Pins(ctx, "")
		if err != nil {
			log.Warn("others are not told of pinned layers", "error", err)
		}
		for _, pin := range pins {
			// Of ours only layer roots are dag-pb, and those of blobs may be raw.
			if strings.HasPrefix(pin.Name, "ipcs:") && pin.Root.Prefix().Codec == cid.DagProtobuf || strings.HasPrefix(pin.Name, "ipcs:blob-") {
				seen[pin.Root] = true
			}
		}
		roots := make([]cid.Cid, 0, len(seen))
		for root := range seen {
			roots = append(roots, root)
		}
		return roots
	}
}

// routingServer tells nodes of each other.
func routingServer(p *parts, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           routing.NewHandler(new(routing.Table), p.node.Admits, log),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
}

// checkFinding refuses a DHT that anybody could join, and mDNS for a node that nobody could connect to.
func (c nodeConfig) checkFinding() error {
	if c.DHT && c.SwarmKey == "" && len(c.Allow) == 0 {
		return errors.New("configuration: node.dht is for networks that strangers cannot join: set node.swarm_key, to the same key on all nodes, or node.allow, to their IDs")
	}
	loopback := func(s string) bool {
		addr, err := multiaddr.NewMultiaddr(s)
		return err == nil && manet.IsIPLoopback(addr)
	}
	if c.MDNS && !slices.ContainsFunc(c.Listen, func(s string) bool { return !loopback(s) }) {
		return errors.New("configuration: node.mdns tells others on the link where this node listens: set node.listen to an address that they reach (an example: /ip4/10.0.0.2/tcp/4001)")
	}
	return nil
}
