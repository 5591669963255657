package origin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Node is this node and its peers, as ipfs.Node is.
type Node interface {
	ipfs.Getter
	ipfs.Fetcher
	// Cache keeps blocks on this machine that came from elsewhere.
	Cache(ctx context.Context, blocks ...ipfs.Block) error
}

// How long nothing may come of peers before the registry is asked: for what somebody waits for, and for the rest.
const (
	demandPatience = 100 * time.Millisecond
	sparePatience  = time.Second
	// originPatience is how long nothing may come of the registry until peers are asked, though they are slow.
	originPatience = time.Second
)

// A Source has blocks from peers, and from where images are kept when no peer has them, or they are slow. Peers are
// asked first: they are nearer, mostly, and cost nobody anything; unless they have taken much longer lately (cost.go). What has
// not come of them when they said no, or said nothing for a while, or have had the time in which the origin would have
// brought it several times, comes from the origin, or from them: they are waited for beside it, as if there were none.
// While places are away that may have it, all are asked again and again, until the context ends. What nobody waits for comes in
// another way (spare.go).
type Source struct {
	node   Node
	origin *Origin
	trust  trust
	rank   ranking
	lately atomic.Int64 // when a peer brought something that nobody waits for, in nanoseconds
}

// NewSource returns a Source, which alone uses the origin from now on.
func NewSource(node Node, origin *Origin) *Source {
	s := &Source{node: node, origin: origin, rank: ranking{origin: &origin.meter}}
	origin.together = s.together
	return s
}

// Get implements ipfs.Getter. What came from elsewhere is kept.
func (s *Source) Get(ctx context.Context, c cid.Cid) (data []byte, err error) {
	var got ipfs.Block
	err = s.fetch(ctx, one{s.node}, []cid.Cid{c}, func(b ipfs.Block) error {
		got = b
		return nil
	})
	if err == nil && got.From != fromNode {
		err = s.node.Cache(context.WithoutCancel(ctx), got)
	}
	return got.Data, err
}

// fromNode is where blocks come from that Get of a node gave, which keeps them itself.
const fromNode = "node"

// one is a node that is asked for blocks by Get.
type one struct{ Node }

// Fetch implements ipfs.Fetcher.
func (n one) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := n.Get(ctx, c)
		if err == nil {
			err = fn(ipfs.Block{Cid: c, Data: data, From: fromNode})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Fetch implements ipfs.Fetcher.
func (s *Source) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return s.fetch(ctx, s.node, cids, fn)
}

// fetch has blocks from the node's peers as node gets them, or from the origin.
func (s *Source) fetch(ctx context.Context, node ipfs.Fetcher, cids []cid.Cid, fn func(ipfs.Block) error) error {
	// What is asked of the origin ends when peers have brought all.
	live, enough := context.WithCancel(ctx)
	defer enough()
	f := &both{fn: fn, node: node, rank: &s.rank, enough: enough, wanted: make(map[cid.Cid]struct{}, len(cids)), came: make(chan struct{}, 1)}
	for _, c := range cids {
		f.wanted[c] = struct{}{}
	}
	for {
		more := s.origin.learns()
		if s.origin.knows(f.left(cids)) {
			break
		}
		over, err := f.until(ctx, f.left(cids), more)
		if trouble := s.origin.failed.lately(); err != nil && trouble != nil && !f.hasEnded() {
			err = fmt.Errorf("%w; of where images are kept, something else was not to be had lately: %w", err, trouble)
		}
		if over {
			return err
		}
	}
	if ipfs.RankOf(ctx) > ipfs.Ahead {
		return s.spare(ctx, live, f, cids)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		more := s.origin.learns()
		if err := s.first(ctx, live, f, f.left(cids)); err != nil {
			return err
		}
		if err := s.shared(ctx, live, f, f.left(cids)); err != nil {
			return err
		}
		over, err := f.beside(ctx, live, s, f.left(cids), pause, more)
		if over {
			return err
		}
	}
}

// first has from peers, or from the origin if they were slow lately, what comes without a pause, and soon enough. Machines that get something
// together go by each other: the registry's link is not each one's.
func (s *Source) first(ctx, live context.Context, f *both, cids []cid.Cid) error {
	bytes := sizeOf(ctx, len(cids))
	var limit time.Duration
	if !s.together() {
		if s.rank.originFirst(bytes) {
			_ = f.alone(live, s.origin, cids, originPatience, 0) // what does not come is asked for again
			if len(f.left(cids)) == len(cids) {
				s.rank.originFailed()
			}
			return f.over(ctx)
		}
		limit = s.rank.limit(bytes)
	}
	return f.alone(ipfs.WithoutPatience(ctx), measuredPeers{f.node, &s.rank.peers}, cids, demandPatience, limit)
}

// beside has from the origin what it has, while peers are waited for as if there were none. It is over when all has come, or
// nobody has what has not. Places that are away are asked again after a pause, and origins of which more is known then.
func (f *both) beside(ctx, live context.Context, s *Source, cids []cid.Cid, pause time.Duration, more <-chan struct{}) (over bool, err error) {
	if len(cids) == 0 {
		return true, nil
	}
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.node.Fetch(pctx, cids, f.deliver) }()
	oerr := s.origin.Fetch(live, cids, f.deliver)
	var again <-chan time.Time
	if errors.Is(oerr, ErrAway) {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		again = timer.C
	}
	if len(f.left(cids)) == 0 || f.over(ctx) != nil {
		cancel()
	}
	var perr error
	select {
	case perr = <-done:
		if again != nil && f.over(ctx) == nil && len(f.left(cids)) > 0 {
			select {
			case <-again:
			case <-ctx.Done():
			}
		}
	case <-more:
		cancel()
		<-done
	case <-again:
		cancel()
		<-done
	}
	switch err := f.over(ctx); {
	case len(f.left(cids)) == 0:
		return true, nil
	case err != nil && (oerr == nil || f.hasEnded()):
		return true, err
	case err != nil:
		return true, fmt.Errorf("%w; from where the image is kept: %w", err, oerr)
	case perr == nil || again != nil:
		return false, nil
	}
	return true, fmt.Errorf("%w; and from where the image is kept: %w", perr, oerr)
}

// both is one call of Fetch.
type both struct {
	fn   func(ipfs.Block) error
	node ipfs.Fetcher
	rank *ranking
	came chan struct{} // told of each block

	enough func() // called when nothing is wanted any more

	mu     sync.Mutex
	wanted map[cid.Cid]struct{}
	ended  error // of fn
}

func (f *both) deliver(b ipfs.Block) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.wanted[b.Cid]; !ok || f.ended != nil {
		return f.ended
	}
	delete(f.wanted, b.Cid)
	if f.ended = f.fn(b); f.ended != nil || len(f.wanted) == 0 {
		f.enough()
	}
	select {
	case f.came <- struct{}{}:
	default:
	}
	return f.ended
}

// left returns what has not come.
func (f *both) left(cids []cid.Cid) (rest []cid.Cid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return among(f.wanted, cids)
}

// until has blocks from peers until more is known of origins, and says whether that is over.
func (f *both) until(ctx context.Context, cids []cid.Cid, more <-chan struct{}) (over bool, err error) {
	pctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- f.node.Fetch(pctx, cids, f.deliver) }()
	select {
	case err := <-done:
		return true, err
	case <-more:
		cancel()
		err := <-done
		return err == nil || f.ended != nil || ctx.Err() != nil, err
	}
}

// alone has from one source what comes without a pause, in no more than limit (0: as long as it takes). The error is that of fn, or of who asks.
func (f *both) alone(ctx context.Context, from ipfs.Fetcher, cids []cid.Cid, patience, limit time.Duration) error {
	actx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	done := make(chan error, 1)
	go func() { done <- from.Fetch(actx, cids, f.deliver) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var end <-chan time.Time
	if limit > 0 {
		t := time.NewTimer(limit)
		defer t.Stop()
		end = t.C
	}
	for {
		select {
		case <-done:
			return f.over(ctx)
		case <-f.came:
			timer.Reset(patience)
			continue
		case <-timer.C:
		case <-end:
		}
		stop(errGivenUp)
		<-done
		return f.over(ctx)
	}
}

// hasEnded says whether fn has ended it.
func (f *both) hasEnded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended != nil
}

// over is the error that ends all: that of fn, or of who asks.
func (f *both) over(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != nil {
		return f.ended
	}
	return ctx.Err()
}
