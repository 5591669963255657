package dag

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// aheadLeaves is how many leaves that follow each other a walk gets at a time.
	aheadLeaves = 16
	// maxWaiting bounds what a walk remembers to visit, which deep DAGs of wide nodes make large: 32
	// bytes each.
	maxWaiting = 4 << 20
)

// ErrCodec says that it is not known what a block links to.
var ErrCodec = errors.New("only DAGs of dag-pb and raw blocks are walked")

// ErrWide says that a DAG is too deep and too wide at once.
var ErrWide = fmt.Errorf("more than %d blocks wait to be visited", maxWaiting)

// visited is a block's digest and codec, in less memory than its CID.
type visited [33]byte

func visitedOf(c cid.Cid) (v visited) {
	v[0] = byte(c.Prefix().Codec)
	copy(v[1:], c.Hash()[len(c.Hash())-32:])
	return v
}

// Walk calls fn with each block of the DAG below root, once, in the order in which a walk in depth
// comes to them, the root first. It holds aheadLeaves blocks at a time. What CIDs hold themselves
// is no block. The error is ErrCodec, wrapped, where it is not known what a block links to.
func Walk(ctx context.Context, src Source, root cid.Cid, fn func(ipfs.Block) error) error {
	w := walk{src: src, seen: map[visited]struct{}{}, fn: fn}
	return w.from(ctx, root)
}

// A Store is where a DAG is to be complete.
type Store interface {
	Source
	ipfs.Local
	ipfs.Putter
}

// Complete gets what of the DAG below root is not in dst from its peers, and puts it there. Leaves
// that are there are not read. The errors are those of Walk.
func Complete(ctx context.Context, dst Store, root cid.Cid) error {
	w := walk{src: dst, seen: map[visited]struct{}{}, here: dst.Has}
	w.fn = func(b ipfs.Block) error {
		if b.Cid.Prefix().Codec != cid.Raw {
			ok, err := dst.Has(ctx, b.Cid)
			if ok || err != nil {
				return err
			}
		}
		return dst.Put(ctx, b)
	}
	return w.from(ctx, root)
}

type walk struct {
	src     Source
	fn      func(ipfs.Block) error
	here    func(context.Context, cid.Cid) (bool, error) // whether a leaf need not be had; may be nil
	seen    map[visited]struct{}
	waiting []cid.Cid // the last is next
}

func (w *walk) from(ctx context.Context, root cid.Cid) error {
	if err := w.push([]cid.Cid{root}); err != nil {
		return err
	}
	for len(w.waiting) > 0 {
		next, err := w.next(ctx)
		if err != nil {
			return err
		}
		for _, b := range next {
			if err := w.fn(b); err != nil {
				return err
			}
			links, err := ipfs.Links(b)
			if err == nil {
				err = w.push(links)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// push notes what a block links to.
func (w *walk) push(links []cid.Cid) error {
	for i := len(links) - 1; i >= 0; i-- {
		c := links[i]
		p := c.Prefix()
		switch {
		case p.Codec != cid.DagProtobuf && p.Codec != cid.Raw:
			return fmt.Errorf("block %s has codec %#x: %w", c, p.Codec, ErrCodec)
		case p.MhType == mh.IDENTITY && p.Codec == cid.Raw:
			continue
		case p.MhType != mh.SHA2_256 || p.MhLength != 32:
			return fmt.Errorf("block %s: %w: its hash is not sha2-256", c, ipfs.ErrHash)
		}
		if _, ok := w.seen[visitedOf(c)]; !ok {
			w.waiting = append(w.waiting, c)
		}
	}
	if len(w.waiting) > maxWaiting {
		return ErrWide
	}
	return nil
}

// next gets the next block, and if it is a leaf those that follow it.
func (w *walk) next(ctx context.Context) ([]ipfs.Block, error) {
	var wanted []cid.Cid
	for len(w.waiting) > 0 && len(wanted) < aheadLeaves {
		c := w.waiting[len(w.waiting)-1]
		leaf := c.Prefix().Codec == cid.Raw
		_, seen := w.seen[visitedOf(c)]
		if !leaf && !seen && len(wanted) > 0 {
			break // what it links to comes before what follows it
		}
		w.waiting = w.waiting[:len(w.waiting)-1]
		if seen {
			continue
		}
		w.seen[visitedOf(c)] = struct{}{}
		if leaf && w.here != nil {
			if ok, err := w.here(ctx, c); ok || err != nil {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		if wanted = append(wanted, c); !leaf {
			break
		}
	}
	return get(ctx, w.src, wanted)
}

// get gets blocks, in this order.
func get(ctx context.Context, src Source, cids []cid.Cid) ([]ipfs.Block, error) {
	if len(cids) == 0 {
		return nil, ctx.Err()
	}
	at := make(map[cid.Cid]int, len(cids))
	for i, c := range cids {
		at[c] = i
	}
	out := make([]ipfs.Block, len(cids))
	err := src.Fetch(ctx, cids, func(b ipfs.Block) error {
		out[at[b.Cid]] = b
		return keep(ctx, src, b)
	})
	if err != nil {
		for i, b := range out {
			if !b.Cid.Defined() {
				return nil, missing(cids[i], err)
			}
		}
	}
	return out, err
}
