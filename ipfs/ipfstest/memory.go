// Package ipfstest holds the in-memory node with faults, and the suite that every
// ipfs.Node must pass.
package ipfstest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

var _ ipfs.Node = (*Memory)(nil)

// Fault decides whether an operation fails: the operation's name is that of the
// method in lower case ("get", "fetch", "put", "has", "pin", "unpin", "pins"). For
// the operations on pins c is the root, or cid.Undef.
type Fault func(op string, c cid.Cid) error

// Counts says how often each operation was called, and for blocks how many.
type Counts struct {
	Gets, Fetches, Puts, Has, Pins int // calls
	Blocks                         int // blocks handed out
	FromPeers                      int // of these, blocks that came from a peer
}

// A Memory is an ipfs.Node in memory. It can be slow, fail and lie on demand.
type Memory struct {
	mu      sync.Mutex
	blocks  map[cid.Cid][]byte
	corrupt map[cid.Cid]bool
	pins    map[ipfs.Pin]bool
	peers   []*Memory
	latency time.Duration
	fault   Fault
	counts  Counts
	closed  bool
}

// NewMemory returns an empty node.
func NewMemory() *Memory {
	return &Memory{blocks: map[cid.Cid][]byte{}, corrupt: map[cid.Cid]bool{}, pins: map[ipfs.Pin]bool{}}
}

// SetLatency makes every operation take at least d.
func (m *Memory) SetLatency(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.latency = d
}

// SetFault makes operations fail as f says; nil heals the node.
func (m *Memory) SetFault(f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// Corrupt makes the node serve wrong bytes for c, if it has it, to its own callers
// and to its peers.
func (m *Memory) Corrupt(c cid.Cid) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.corrupt[c] = true
}

// Heal undoes Corrupt.
func (m *Memory) Heal(c cid.Cid) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.corrupt, c)
}

// Cids lists the blocks stored.
func (m *Memory) Cids() []cid.Cid {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.blocks))
}

// Remove forgets a block, pinned or not.
func (m *Memory) Remove(c cid.Cid) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blocks, c)
}

// Connect makes other a peer of m: what m does not have, it gets from there. It
// does not make m a peer of other.
func (m *Memory) Connect(other *Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.peers = append(m.peers, other)
}

// Disconnect undoes Connect.
func (m *Memory) Disconnect(other *Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := m.peers[:0:0]
	for _, p := range m.peers {
		if p != other {
			kept = append(kept, p)
		}
	}
	m.peers = kept
}

// Counts returns what was asked of the node so far.
func (m *Memory) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

// Len returns the number of blocks stored.
func (m *Memory) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.blocks)
}

// begin waits out the latency, counts the call and asks the fault.
func (m *Memory) begin(ctx context.Context, op string, c cid.Cid, count func(*Counts)) error {
	m.mu.Lock()
	latency, fault, closed := m.latency, m.fault, m.closed
	count(&m.counts)
	m.mu.Unlock()
	if closed {
		return fmt.Errorf("%s: the node is closed", op)
	}
	if latency > 0 {
		timer := time.NewTimer(latency)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	if fault != nil {
		return fault(op, c)
	}
	return nil
}

// local returns the bytes of a block, wrong ones if it was told to.
func (m *Memory) local(c cid.Cid) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blocks[c]
	if ok && m.corrupt[c] {
		wrong := append([]byte("corrupt"), data...)
		return wrong[:len(wrong)-min(len(data), 7)], true
	}
	return data, ok
}

// find looks for a block here and then at the peers, and verifies what it finds.
// A peer with wrong bytes is passed over; wrong bytes of its own are an error.
func (m *Memory) find(c cid.Cid) (data []byte, peer bool, err error) {
	if data, ok := m.local(c); ok {
		return data, false, ipfs.Verify(c, data)
	}
	m.mu.Lock()
	peers := m.peers
	m.mu.Unlock()
	for _, p := range peers {
		if data, ok := p.local(c); ok && ipfs.Verify(c, data) == nil {
			return data, true, nil
		}
	}
	return nil, false, fmt.Errorf("block %s: %w here and on %d peers", c, ipfs.ErrNotFound, len(peers))
}

func (m *Memory) delivered(peer bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts.Blocks++
	if peer {
		m.counts.FromPeers++
	}
}

// Get implements ipfs.Getter. A block that came from a peer is kept.
func (m *Memory) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if err := m.begin(ctx, "get", c, func(n *Counts) { n.Gets++ }); err != nil {
		return nil, err
	}
	data, peer, err := m.find(c)
	if err != nil {
		return nil, err
	}
	if peer {
		m.mu.Lock()
		m.blocks[c] = data
		m.mu.Unlock()
	}
	m.delivered(peer)
	return data, nil
}

// Fetch implements ipfs.Fetcher. Faults and latency apply to every block.
func (m *Memory) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	var missing error
	count := func(n *Counts) { n.Fetches++ }
	seen := make(map[cid.Cid]bool, len(cids))
	for _, c := range cids {
		if seen[c] {
			continue
		}
		seen[c] = true
		if err := m.begin(ctx, "fetch", c, count); err != nil {
			return err
		}
		count = func(*Counts) {}
		data, peer, err := m.find(c)
		if err != nil {
			missing = err
			continue
		}
		m.delivered(peer)
		if err := fn(ipfs.Block{Cid: c, Data: data}); err != nil {
			return err
		}
	}
	return missing
}

// Cache is Put.
func (m *Memory) Cache(ctx context.Context, blocks ...ipfs.Block) error { return m.Put(ctx, blocks...) }

// Put implements ipfs.Putter.
func (m *Memory) Put(ctx context.Context, blocks ...ipfs.Block) error {
	count := func(n *Counts) { n.Puts++ }
	for _, b := range blocks {
		if err := m.begin(ctx, "put", b.Cid, count); err != nil {
			return err
		}
		count = func(*Counts) {}
		if err := b.Check(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		m.blocks[b.Cid] = append([]byte(nil), b.Data...)
	}
	return nil
}

// Has implements ipfs.Local.
func (m *Memory) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if err := m.begin(ctx, "has", c, func(n *Counts) { n.Has++ }); err != nil {
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blocks[c]
	return ok, nil
}

// BlockSize returns the size of a block that is here.
func (m *Memory) BlockSize(ctx context.Context, c cid.Cid) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blocks[c]
	if !ok {
		return 0, fmt.Errorf("block %s: %w", c, ipfs.ErrNotFound)
	}
	return len(data), nil
}
