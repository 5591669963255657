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
	withheld func(context.Context, cid.Cid) bool // nil: nothing
}

func (s offered) withholds(ctx context.Context, c cid.Cid) bool {
	return s.withheld != nil && s.withheld(ctx, c)
}

func (s offered) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if s.withholds(ctx, c) {
		return nil, fmt.Errorf("block %s: %w", c, ipfs.ErrNotFound)
	}
	return s.Store.Get(ctx, c)
}

func (s offered) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if s.withholds(ctx, c) {
		return false, nil
	}
	return s.Store.Has(ctx, c)
}

func (s offered) BlockSize(ctx context.Context, c cid.Cid) (int, error) {
	if s.withholds(ctx, c) {
		return 0, fmt.Errorf("size of block %s: %w", c, ipfs.ErrNotFound)
	}
	return s.Store.BlockSize(ctx, c)
}
