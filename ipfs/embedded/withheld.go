package embedded

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// offered is a Store as peers see it: what is withheld from them is not there.
type offered struct {
	Store
	withheld func(cid.Cid) bool // nil: nothing
}

func (s offered) withholds(c cid.Cid) bool { return s.withheld != nil && s.withheld(c) }

func (s offered) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if s.withholds(c) {
		return nil, fmt.Errorf("block %s: %w", c, ipfs.ErrNotFound)
	}
	return s.Store.Get(ctx, c)
}

func (s offered) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if s.withholds(c) {
		return false, nil
	}
	return s.Store.Has(ctx, c)
}

func (s offered) BlockSize(ctx context.Context, c cid.Cid) (int, error) {
	if s.withholds(c) {
		return 0, fmt.Errorf("size of block %s: %w", c, ipfs.ErrNotFound)
	}
	return s.Store.BlockSize(ctx, c)
}

// Withholding returns a Store without the blocks that are withheld.
func Withholding(store Store, withheld func(cid.Cid) bool) Store { return offered{store, withheld} }

// offeredForms are Forms as peers see them.
type offeredForms struct {
	Forms
	offered offered
}

// forms returns Forms without what is withheld: nil if there are none.
func (s offered) forms(all Forms) Forms {
	if all == nil {
		return nil
	}
	return offeredForms{all, s}
}

// Form implements Forms.
func (f offeredForms) Form(c cid.Cid) (frame []byte, size int, ok bool) {
	if f.offered.withholds(c) {
		return nil, 0, false
	}
	return f.Forms.Form(c)
}
