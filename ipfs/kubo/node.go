package kubo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// Peer is what blocks of a Node are said to come from (ipfs.Block.From): Kubo, wherever it
	// has them from.
	Peer = "kubo"
	// lookTime is how long one look at Kubo may take, firstLook that of Open.
	lookTime  = 5 * time.Second
	firstLook = time.Second
	// lookAgain is how often it is looked at.
	lookAgain = 2 * time.Second
)

// A Store keeps blocks on this machine. *objects.Store is one.
type Store interface {
	Get(ctx context.Context, c cid.Cid) ([]byte, error) // ipfs.ErrNotFound if absent
	Cache(ctx context.Context, blocks ...ipfs.Block) error
}

// Config says which Kubo a Node is, and how long it is waited for.
type Config struct {
	Addr string // as New takes it
	// Timeout is how long a block may take to come, and how long requests wait for a Kubo that
	// does not answer; default 30 s.
	Timeout time.Duration
	Logger  *slog.Logger // default: discard
}

// A State is what was seen of Kubo at the last look.
type State struct {
	ID        string
	Addrs     []string // that it listens on, each with /p2p/ID
	Agent     string   // its version
	Connected []string // addresses of its peers, each with /p2p/ID
	Err       error    // why nothing was seen; the rest is then of an earlier look
}

// A Node is Kubo as the node of a daemon, with what the daemon keeps itself before it: blocks are
// read from the store if that has them, and from Kubo otherwise. What is Put and pinned is
// Kubo's alone.
type Node struct {
	*Client
	store    Store
	log      *slog.Logger
	received atomic.Uint64 // bytes of blocks

	mu    sync.Mutex
	state State

	cancel context.CancelFunc
	wg     sync.WaitGroup
}

var _ ipfs.Node = (*Node)(nil)

// Open returns a node. It looks for Kubo for a moment, and returns whether that answers or not;
// ctx serves for its values only, and Close ends the node.
func Open(ctx context.Context, cfg Config, store Store) (*Node, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = findTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	client, err := NewWith(cfg.Addr, Options{
		Timeout: cfg.Timeout, Patience: cfg.Timeout,
		Help: "start Kubo (ipfs daemon), or set node.kubo to its address",
	})
	if err != nil {
		return nil, err
	}
	n := &Node{Client: client, store: store, log: cfg.Logger}
	ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if n.look(ctx, firstLook); n.State().Err == nil {
		n.log.Info("Kubo is this daemon's node", "api", client.addr, "id", n.ID(), "agent", n.State().Agent)
	}
	n.wg.Go(func() { n.watch(ctx) })
	return n, nil
}

// Close ends the looks at Kubo, and waits. Kubo goes on.
func (n *Node) Close() error {
	n.cancel()
	n.wg.Wait()
	return n.Client.Close()
}

// Addr returns the address of Kubo's RPC, without credentials.
func (n *Node) Addr() string { return n.addr }

// Received returns how many bytes of blocks came from Kubo.
func (n *Node) Received() uint64 { return n.received.Load() }

// State returns what was seen of Kubo last.
func (n *Node) State() State {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

// ID returns Kubo's peer ID, or "" if it has not been seen yet.
func (n *Node) ID() string { return n.State().ID }

// Addrs returns the addresses that Kubo listens on, each with /p2p/ID.
func (n *Node) Addrs() []string { return n.State().Addrs }

// Connected returns the addresses of Kubo's peers, each with /p2p/ID.
func (n *Node) Connected() []string { return n.State().Connected }

// Connect has Kubo dial a peer, unless it is connected to it: addr is a multiaddr with /p2p/ID.
func (n *Node) Connect(ctx context.Context, addr string) error {
	if err := n.api.Request("swarm/connect", addr).Exec(ctx, nil); err != nil {
		return n.failed(ctx, "have Kubo connect to "+addr, err)
	}
	return nil
}

// Get implements ipfs.Getter. A block that came from Kubo is kept in the store: it is one that
// is asked for alone, as the root of a layer.
func (n *Node) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if data, err := n.local(ctx, c); data != nil || err != nil {
		return data, err
	}
	data, err := n.Client.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	n.received.Add(uint64(len(data)))
	b, err := ipfs.VerifiedBlock(c, data)
	if err == nil {
		err = n.store.Cache(ctx, b)
	}
	if err != nil {
		return nil, fmt.Errorf("keep block %s that came from Kubo: %w", c, err)
	}
	return data, nil
}

// local returns a block that is here, and nil if it is to be asked of Kubo.
func (n *Node) local(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := checkCid(c); err != nil {
		return nil, err
	}
	if string(c.Hash()) == string(emptyHash) {
		return []byte{}, nil
	}
	data, err := n.store.Get(ctx, c)
	switch {
	case err == nil:
		return data, nil
	case ctx.Err() != nil:
		return nil, err
	case !errors.Is(err, ipfs.ErrNotFound):
		n.log.Warn("cannot read a block that is here; asking Kubo", "cid", c, "err", err)
	}
	return nil, nil
}

// emptyHash is that of the block of no bytes, which everybody has, and bitswap servers say that
// they do not.
var emptyHash, _ = mh.Sum(nil, mh.SHA2_256, -1)

// Fetch implements ipfs.Fetcher: first what is here, and then what Kubo has or gets.
func (n *Node) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	seen, rest := make(map[cid.Cid]struct{}, len(cids)), make([]cid.Cid, 0, len(cids))
	for _, c := range cids {
		if _, ok := seen[c]; ok {
			continue
		}
		seen[c] = struct{}{}
		data, err := n.local(ctx, c)
		if err == nil && data != nil {
			err = fn(ipfs.Block{Cid: c, Data: data})
		}
		if err != nil {
			return err
		}
		if data == nil {
			rest = append(rest, c)
		}
	}
	return n.Client.Fetch(ctx, rest, func(b ipfs.Block) error {
		n.received.Add(uint64(len(b.Data)))
		b.From = Peer
		return fn(b)
	})
}

// Cache stores blocks on this machine, and not in Kubo.
func (n *Node) Cache(ctx context.Context, blocks ...ipfs.Block) error {
	return n.store.Cache(ctx, blocks...)
}

// watch looks at Kubo again and again.
func (n *Node) watch(ctx context.Context) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			n.look(ctx, lookTime)
		}
	}
}

// look finds out who Kubo is, whether it answers, and who its peers are. It says when Kubo goes
// and comes.
func (n *Node) look(ctx context.Context, limit time.Duration) {
	looking, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	seen, err := n.Client.look(looking)
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	before := n.state
	if err == nil {
		n.state = seen
	}
	n.state.Err = err
	n.mu.Unlock()
	switch {
	case err != nil && before.Err == nil:
		n.log.Warn("Kubo does not answer: what is not on this disk cannot be read until it does", "err", err)
	case err == nil && before.Err != nil:
		n.log.Info("Kubo answers", "api", n.addr, "id", seen.ID, "agent", seen.Agent)
	}
}

// look asks a daemon who it is, and who its peers are.
func (c *Client) look(ctx context.Context) (State, error) {
	var id struct {
		ID, AgentVersion string
		Addresses        []string
	}
	var swarm struct{ Peers []struct{ Addr, Peer string } }
	for command, to := range map[string]any{"id": &id, "swarm/peers": &swarm} {
		resp, err := c.send(ctx, c.api.Request(command))
		if err != nil {
			return State{}, c.failed(ctx, "look for Kubo", err)
		}
		err = json.NewDecoder(resp.Output).Decode(to)
		if cerr := resp.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return State{}, c.failed(ctx, "look for Kubo", fmt.Errorf("read the answer to %s: %w", command, err))
		}
	}
	s := State{ID: id.ID, Addrs: id.Addresses, Agent: id.AgentVersion}
	for _, p := range swarm.Peers {
		s.Connected = append(s.Connected, p.Addr+"/p2p/"+p.Peer)
	}
	slices.Sort(s.Connected)
	return s, nil
}
