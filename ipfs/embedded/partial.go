package embedded

import (
	"context"
	"errors"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
)

// A Partial has blocks that are here, and not in the store yet: leaves of files that are incomplete.
// *fetch.Fetcher is one.
type Partial interface {
	Leaf(c cid.Cid) ([]byte, error) // verified; ipfs.ErrNotFound if absent
	HasLeaf(c cid.Cid) bool
}

// blockSource is what is served over our own protocol: the store, and a Partial, if there is one.
// Machines that get a large file at the same time have its leaves for each other so.
type blockSource struct {
	transfer.Store
	offered offered // says what is withheld, wherever it is
	mu      sync.Mutex
	more    Partial
}

func (s *blockSource) partial() Partial {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.more
}

func (s *blockSource) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := s.Store.Get(ctx, c)
	if !errors.Is(err, ipfs.ErrNotFound) || s.offered.withholds(c) {
		return data, err
	}
	if more := s.partial(); more != nil {
		if data, err := more.Leaf(c); !errors.Is(err, ipfs.ErrNotFound) {
			return data, err
		}
		return s.Store.Get(ctx, c) // it may have become an object between
	}
	return data, err
}

func (s *blockSource) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if more := s.partial(); more != nil && more.HasLeaf(c) && !s.offered.withholds(c) {
		return true, nil
	}
	return s.Store.Has(ctx, c)
}

// ServeAlso has peers get blocks from more, too, besides the store. Before more is closed it is
// called again, with nil.
func (n *Node) ServeAlso(more Partial) {
	if n.online == nil {
		return
	}
	s := n.online.streams.source
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more = more
}
