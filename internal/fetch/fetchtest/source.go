// Package fetchtest has a source of blocks with faults, for tests.
package fetchtest

import (
	"context"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// A Source delivers the blocks it was given, and counts what it is asked for.
type Source struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
	asked  map[cid.Cid]int
	calls  int
	hook   func(ctx context.Context, c cid.Cid) error
}

// New returns a Source that has these blocks.
func New(blocks ...ipfs.Block) *Source {
	s := &Source{blocks: make(map[cid.Cid][]byte), asked: make(map[cid.Cid]int)}
	s.Add(blocks...)
	return s
}

// Add gives the Source more blocks.
func (s *Source) Add(blocks ...ipfs.Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blocks {
		s.blocks[b.Cid] = b.Data
	}
}

// SetHook calls hook before each block is delivered, without locks; its error stands
// for the block.
func (s *Source) SetHook(hook func(ctx context.Context, c cid.Cid) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hook = hook
}

// Fetch implements fetch.Source. It goes on after an error, as a node with peers does.
func (s *Source) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	s.mu.Lock()
	s.calls++
	s.mu.Unlock()
	var first error
	for _, c := range cids {
		data, err := s.fetch(ctx, c)
		if err == nil {
			err = fn(ipfs.Block{Cid: c, Data: data})
		}
		if err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (s *Source) fetch(ctx context.Context, c cid.Cid) ([]byte, error) {
	s.mu.Lock()
	s.asked[c]++
	hook := s.hook
	s.mu.Unlock()
	if hook != nil {
		if err := hook(ctx, c); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	data, ok := s.blocks[c]
	if !ok {
		return nil, ipfs.ErrNotFound
	}
	return data, ctx.Err()
}

// Asked returns how often a block was asked for.
func (s *Source) Asked(c cid.Cid) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[c]
}

// Totals returns how many different blocks were asked for, how often in all, and in how
// many calls.
func (s *Source) Totals() (blocks, times, calls int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.asked {
		times += n
	}
	return len(s.asked), times, s.calls
}
