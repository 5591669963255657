package embedded

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

// firstFew blocks of a list are wanted as if each were alone.
const firstFew = 16

// Get implements ipfs.Getter. A block that came from a peer is stored.
func (n *Node) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	data, err := n.local(ctx, c)
	if err == nil || !errNotFound(err) || n.online == nil {
		return data, err
	}
	x := n.online.exchange
	start := time.Now()
	out := make(chan result, 1)
	if err := x.request(ctx, c, order{rank: ipfs.RankOf(ctx), priority: topPriority, patient: !ipfs.HastyOf(ctx)}, out); err != nil {
		return nil, n.gaveUp(c, start, err)
	}
	select {
	case res := <-out:
		if res.err != nil {
			return nil, res.err
		}
		return res.block.Data, n.keep(ctx, res)
	case <-ctx.Done():
		err := n.gaveUp(c, start, ctx.Err()) // while the want says what was tried
		x.forget(c, out)
		return nil, err
	}
}

// keep stores a block that was fetched, once for all who wait for it, and whether
// or not the one who does it gives up.
func (n *Node) keep(ctx context.Context, res result) (err error) {
	res.store.Do(func() {
		err = n.Cache(context.WithoutCancel(ctx), res.block)
	})
	if err != nil {
		return fmt.Errorf("store block %s that came from a peer: %w", res.cid, err)
	}
	return nil
}

// gaveUp names the block and, if time ran out, what was tried.
func (n *Node) gaveUp(c cid.Cid, start time.Time, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return n.online.exchange.notFound(c, time.Since(start), err)
	}
	return fmt.Errorf("get block %s: %w", c, err)
}

// local reads from this node.
func (n *Node) local(ctx context.Context, c cid.Cid) ([]byte, error) {
	if !isSHA256(c) {
		return nil, fmt.Errorf("block %s: %w: only sha2-256 is supported", c, ipfs.ErrHash)
	}
	if isEmpty(c) {
		return []byte{}, nil
	}
	data, err := n.store.Get(ctx, c)
	if err != nil && errNotFound(err) {
		return nil, &NotFoundError{Cid: c}
	}
	return data, err
}

var emptyHash, _ = mh.Sum(nil, mh.SHA2_256, -1)

// isEmpty says whether c is the block of no bytes. Everybody has it, and bitswap
// servers say that they do not.
func isEmpty(c cid.Cid) bool { return string(c.Hash()) == string(emptyHash) }

// fetch is one call of Fetch.
type fetch struct {
	node    *Node
	share   share
	local   chan result // blocks that are here, and errors
	arrived chan result // blocks from peers; has room for all that are asked for
	hasty   atomic.Bool // a block could not be had: do not wait for the others' peers

	mu     sync.Mutex
	weight map[cid.Cid]int64 // of the budget, for each block that is asked for
}

// Fetch implements ipfs.Fetcher. It asks for blocks as fast as earlier ones are taken by
// fn, up to maxInFlight bytes and maxWants blocks.
func (n *Node) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	cids = unique(cids)
	f := &fetch{node: n, local: make(chan result), weight: map[cid.Cid]int64{}}
	// Besides what the budget allows, one may be asked for over it.
	f.arrived = make(chan result, min(len(cids), maxWants+1))
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { f.produce(ctx, cids) })
	defer func() {
		cancel()
		wg.Wait()
		f.abandon()
	}()
	return f.consume(ctx, len(cids), fn)
}

func unique(cids []cid.Cid) []cid.Cid {
	seen := make(map[cid.Cid]struct{}, len(cids))
	out := make([]cid.Cid, 0, len(cids))
	for _, c := range cids {
		if _, ok := seen[c]; !ok {
			seen[c] = struct{}{}
			out = append(out, c)
		}
	}
	return out
}

// consume hands n results to fn, and returns the first error that ends the fetch, or
// that of the blocks that could not be had.
func (f *fetch) consume(ctx context.Context, n int, fn func(ipfs.Block) error) error {
	var missing error
	lost, start := 0, time.Now()
	for range n {
		var res result
		select {
		case res = <-f.local:
		case res = <-f.arrived:
		case <-ctx.Done():
			return f.gaveUp(n, time.Since(start), ctx.Err())
		}
		switch {
		case errNotFound(res.err):
			f.hasty.Store(true)
			if lost++; lost == 1 {
				missing = res.err
			}
		case res.err != nil:
			return res.err
		default:
			if err := fn(res.block); err != nil {
				return err
			}
		}
		f.settle(res.cid)
	}
	if lost > 1 {
		return fmt.Errorf("%d of %d blocks could not be fetched, the first: %w", lost, n, missing)
	}
	return missing
}

// gaveUp names, if time ran out, a block that had not come, and what was tried.
func (f *fetch) gaveUp(n int, waited time.Duration, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, context.DeadlineExceeded) {
		for c := range f.weight {
			return f.node.online.exchange.notFound(c, waited, err)
		}
	}
	return fmt.Errorf("fetch %d blocks: %w", n, err)
}

// produce reads what is here and asks for the rest, in order.
func (f *fetch) produce(ctx context.Context, cids []cid.Cid) {
	for i, c := range cids {
		data, err := f.node.local(ctx, c)
		if err != nil && errNotFound(err) && f.node.online != nil {
			err = f.request(ctx, c, i)
			if err == nil {
				continue
			}
		}
		select {
		case f.local <- result{cid: c, block: ipfs.Block{Cid: c, Data: data}, err: err}:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fetch) request(ctx context.Context, c cid.Cid, i int) error {
	x := f.node.online.exchange
	weight := ipfs.BlockSizeOf(ctx)
	if weight == 0 {
		weight = x.blockSize()
	}
	weight = min(max(weight, minWeight), ipfs.LeafSize)
	if err := f.node.budget.acquire(ctx, &f.share, weight); err != nil {
		return err
	}
	f.mu.Lock()
	f.weight[c] = weight
	f.mu.Unlock()
	rank := ipfs.RankOf(ctx)
	how := order{
		rank: rank, priority: int32(topPriority - 1 - min(i, topPriority/2)),
		patient: !f.hasty.Load() && !ipfs.HastyOf(ctx), bulk: i >= firstFew || rank > ipfs.Ahead, size: weight,
		lack: ipfs.LackOf(ctx),
	}
	return x.request(ctx, c, how, f.arrived)
}

// settle gives back the budget of a block.
func (f *fetch) settle(c cid.Cid) {
	f.mu.Lock()
	weight, ok := f.weight[c]
	delete(f.weight, c)
	f.mu.Unlock()
	if ok {
		f.node.budget.release(&f.share, weight)
	}
}

// abandon takes back what was asked for and not taken. The producer is gone.
func (f *fetch) abandon() {
	for c := range f.weight {
		f.node.online.exchange.forget(c, f.arrived)
		f.settle(c)
	}
}
