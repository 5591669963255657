package system

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/http"
	"path/filepath"
	"sync"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/ipfs"
	rpc "github.com/hinshun/ipcs/ipfs/kubo"
)

// A spread is several machines with a node each, of which every one has a share of an
// image's blocks: the hash in a block's CID says whose it is. To convert it is one
// node, and the blocks go through it to the daemons' sockets.
type spread struct {
	machines []*lab.Machine
	daemons  []*lab.Daemon
	addrs    []string // of the nodes
	socket   string   // where it serves while an image is converted
	nodes    []ipfs.Node

	mu     sync.Mutex
	shares []map[cid.Cid]struct{} // what was put on each node
}

var _ ipfs.Node = (*spread)(nil)

// Spread adds n machines to the site, with their disks in memory and a node each. What
// is converted from then on is spread over them, and the publisher has nothing of it.
func (s *Site) Spread(ctx context.Context, l *lab.Lab, n int) error {
	var nodes []ipfs.Node
	sp := &spread{}
	for i := range n {
		m, err := l.Add(ctx, fmt.Sprintf("source%d", i+1), lab.MachineOptions{Memory: true})
		if err != nil {
			return err
		}
		d, err := m.StartDaemon(ctx, lab.DaemonOptions{})
		if err != nil {
			return err
		}
		status, err := d.Status(ctx)
		if err != nil {
			return err
		}
		node, err := rpc.New(d.API)
		if err != nil {
			return err
		}
		nodes, sp.machines, sp.daemons = append(nodes, node), append(sp.machines, m), append(sp.daemons, d)
		sp.addrs = append(sp.addrs, status.Addrs...)
		sp.socket = filepath.Join(filepath.Dir(d.API), "spread.sock")
	}
	sp.over(nodes)
	s.spread = sp
	return nil
}

// over sets the nodes, of which none has anything.
func (sp *spread) over(nodes []ipfs.Node) {
	sp.nodes, sp.shares = nodes, make([]map[cid.Cid]struct{}, len(nodes))
	for i := range sp.shares {
		sp.shares[i] = map[cid.Cid]struct{}{}
	}
}

// serve answers on the socket until f returns, and then returns what went wrong.
func (sp *spread) serve(ctx context.Context, f func(api string) error) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", sp.socket)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: rpc.NewHandler(sp, sp, nil)}
	var serving errgroup.Group
	serving.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", sp.socket, err)
		}
		return nil
	})
	err = f(sp.socket)
	return errors.Join(err, server.Shutdown(context.WithoutCancel(ctx)), serving.Wait(), sp.Close())
}

// fill calls f, which puts an image on the node at api, and checks that the nodes have
// about as many blocks as each other.
func (sp *spread) fill(ctx context.Context, f func(api string) error) error {
	if err := sp.serve(ctx, f); err != nil {
		return err
	}
	n, blocks := len(sp.nodes), 0
	for _, share := range sp.shares {
		blocks += len(share)
	}
	for i, share := range sp.shares {
		// With three nodes that is from 20 to 50 %.
		if got := float64(len(share)*n) / float64(blocks); got < 0.6 || got > 1.5 {
			return fmt.Errorf("spread an image over %d nodes: node %d has %d of %d blocks", n, i+1, len(share), blocks)
		}
	}
	return nil
}

// owner returns the number of the node that has a block.
func (sp *spread) owner(c cid.Cid) int {
	return int(crc32.ChecksumIEEE(c.Hash()) % uint32(len(sp.nodes)))
}

// Put gives each node its share.
func (sp *spread) Put(ctx context.Context, blocks ...ipfs.Block) error {
	shares := make([][]ipfs.Block, len(sp.nodes))
	sp.mu.Lock()
	for _, b := range blocks {
		i := sp.owner(b.Cid)
		shares[i] = append(shares[i], b)
		sp.shares[i][b.Cid] = struct{}{}
	}
	sp.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	for i, share := range shares {
		group.Go(func() error { return sp.nodes[i].Put(ctx, share...) })
	}
	return group.Wait()
}

// Get asks the node that has the block.
func (sp *spread) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	return sp.nodes[sp.owner(c)].Get(ctx, c)
}

// Fetch asks one node after the other.
func (sp *spread) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	shares := make([][]cid.Cid, len(sp.nodes))
	for _, c := range cids {
		i := sp.owner(c)
		shares[i] = append(shares[i], c)
	}
	var missing error
	for i, share := range shares {
		err := sp.nodes[i].Fetch(ctx, share, fn)
		if err != nil && !errors.Is(err, ipfs.ErrNotFound) {
			return err
		}
		missing = errors.Join(missing, err)
	}
	return missing
}

// Has asks the node that would have the block.
func (sp *spread) Has(ctx context.Context, c cid.Cid) (bool, error) {
	return sp.nodes[sp.owner(c)].Has(ctx, c)
}

// Pin pins the root where it is. Nothing is collected elsewhere either: a lab is gone
// before that.
func (sp *spread) Pin(ctx context.Context, pin ipfs.Pin) error {
	return sp.nodes[sp.owner(pin.Root)].Pin(ctx, pin)
}

// Unpin unpins it there.
func (sp *spread) Unpin(ctx context.Context, pin ipfs.Pin) error {
	return sp.nodes[sp.owner(pin.Root)].Unpin(ctx, pin)
}

// Pins lists those of all nodes.
func (sp *spread) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	var all []ipfs.Pin
	for _, n := range sp.nodes {
		pins, err := n.Pins(ctx, name)
		if err != nil {
			return nil, err
		}
		all = append(all, pins...)
	}
	return all, nil
}

// Close ends idle connections. The daemons are the lab's, and can be spoken to again.
func (sp *spread) Close() error {
	var errs []error
	for _, n := range sp.nodes {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// ID is part of what a daemon says about itself: this is no peer.
func (sp *spread) ID() string { return "" }

// Addrs are where the blocks are.
func (sp *spread) Addrs() []string { return sp.addrs }
