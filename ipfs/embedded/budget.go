package embedded

import (
	"context"
	"sync"
)

const (
	// maxInFlight bounds the bytes, as estimated, that all calls of Fetch have asked
	// for and not yet handed to their callers.
	maxInFlight = 96 << 20
	// minWeight makes maxInFlight no more than maxWants blocks, however small.
	minWeight = maxInFlight / maxWants
)

// budget bounds memory. A share that holds nothing is always served, over the limit
// if need be, so that a Fetch within the callback of another moves on.
type budget struct {
	mu      sync.Mutex
	free    int64
	changed chan struct{} // closed and replaced when free grows
}

// share is what one Fetch holds; guarded by budget.mu.
type share struct{ held int64 }

func newBudget(n int64) *budget { return &budget{free: n, changed: make(chan struct{})} }

func (b *budget) acquire(ctx context.Context, s *share, n int64) error {
	for {
		b.mu.Lock()
		if s.held == 0 || b.free >= n {
			b.free -= n
			s.held += n
			b.mu.Unlock()
			return nil
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *budget) release(s *share, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free += n
	s.held -= n
	close(b.changed)
	b.changed = make(chan struct{})
}

// weight is that of a want now.
func (x *exchange) weight() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, r := range x.remotes {
		if !r.speaks {
			return bitswapWeight
		}
	}
	return 1
}

func (x *exchange) acquire(ctx context.Context, how order) error {
	if how.bulk {
		if err := x.bulk.Acquire(ctx, how.weight); err != nil {
			return err
		}
	}
	err := x.slots.Acquire(ctx, how.weight)
	if err != nil && how.bulk {
		x.bulk.Release(how.weight)
	}
	return err
}

func (x *exchange) release(how order) {
	x.slots.Release(how.weight)
	if how.bulk {
		x.bulk.Release(how.weight)
	}
}
