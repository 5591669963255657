package embedded

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

var errReadOnly = errors.New("the bitswap server does not write")

// served is what the bitswap server sees of the store: what is here, read only,
// and only under sha2-256.
type served struct{ store Store }

var _ blockstore.Blockstore = served{}

func (s served) Has(ctx context.Context, c cid.Cid) (bool, error) {
	if !isSHA256(c) {
		return false, nil
	}
	return s.store.Has(ctx, c)
}

func (s served) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	if !isSHA256(c) {
		return nil, ipld.ErrNotFound{Cid: c}
	}
	data, err := s.store.Get(ctx, c)
	if err != nil {
		return nil, notFound(ctx, c, err)
	}
	return blocks.NewBlockWithCid(data, c)
}

func (s served) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	if !isSHA256(c) {
		return 0, ipld.ErrNotFound{Cid: c}
	}
	n, err := s.store.BlockSize(ctx, c)
	if err != nil {
		return 0, notFound(ctx, c, err)
	}
	return n, nil
}

func (served) Put(context.Context, blocks.Block) error       { return errReadOnly }
func (served) PutMany(context.Context, []blocks.Block) error { return errReadOnly }
func (served) DeleteBlock(context.Context, cid.Cid) error    { return errReadOnly }
func (served) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, fmt.Errorf("list all blocks: %w", errors.ErrUnsupported)
}

// notFound gives the server the error it knows. It logs all others as failures of the
// store, also when it is only being stopped.
func notFound(ctx context.Context, c cid.Cid, err error) error {
	if errors.Is(err, ipfs.ErrNotFound) || ctx.Err() != nil {
		return ipld.ErrNotFound{Cid: c}
	}
	return err
}

func isSHA256(c cid.Cid) bool {
	if !c.Defined() {
		return false
	}
	p := c.Prefix()
	return p.MhType == mh.SHA2_256 && p.MhLength == 32
}
