package registry

import (
	"context"
	"fmt"
	"net/http"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// A reader gets the blocks for one request. What came from peers is not stored before keep: it
// may turn out to be no part of any image.
type reader struct {
	h       *handler
	slot    bool
	fetched []ipfs.Block
}

var _ ipfs.Fetcher = (*reader)(nil)

// Fetch implements ipfs.Fetcher.
func (r *reader) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	missing := make(map[cid.Cid]bool)
	for _, c := range cids {
		if r.h.opts.Withheld(c) {
			return fmt.Errorf("block %s: %w", c, ipfs.ErrNotFound)
		}
		here, err := r.h.node.Has(ctx, c)
		if err != nil {
			return err
		}
		if !here {
			missing[c] = true
		}
	}
	if len(missing) > 0 {
		if err := r.take(ctx); err != nil {
			return err
		}
	}
	return r.h.node.Fetch(ctx, cids, func(b ipfs.Block) error {
		if missing[b.Cid] {
			r.fetched = append(r.fetched, b)
		}
		return fn(b)
	})
}

// take waits until the node may be made to ask peers.
func (r *reader) take(ctx context.Context) error {
	if r.slot {
		return nil
	}
	select {
	case r.h.slots <- struct{}{}:
		r.slot = true
		return nil
	case <-ctx.Done():
		return fail(http.StatusTooManyRequests, codeTooMany, "%d requests wait for peers already", cap(r.h.slots))
	}
}

// keep stores what was fetched, so that this node has it for the next request, and for peers.
func (r *reader) keep(ctx context.Context) {
	if len(r.fetched) == 0 {
		return
	}
	if err := r.h.node.Cache(ctx, r.fetched...); err != nil {
		r.h.log.Warn("cannot keep what was fetched for the registry; it is served all the same", "err", err)
	}
}

// close lets others ask peers.
func (r *reader) close() {
	if r.slot {
		<-r.h.slots
	}
}
