package dag

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

// errReadOnly answers whoever would write through what only reads.
var errReadOnly = errors.New("only read here")

// BlockService shows the blocks of a Source to boxo, read only.
func BlockService(src Source) blockservice.BlockService {
	return blockservice.New(readStore{src}, nil)
}

// readStore is a Source as a store of boxo.
type readStore struct{ src Source }

var _ blockstore.Blockstore = readStore{}

func (s readStore) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	return getBlock(ctx, s.src, c)
}

// Has says what the Source can get, which for one that has peers is to get it.
func (s readStore) Has(ctx context.Context, c cid.Cid) (bool, error) {
	_, err := getBlock(ctx, s.src, c)
	if ipld.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (s readStore) GetSize(ctx context.Context, c cid.Cid) (int, error) {
	b, err := getBlock(ctx, s.src, c)
	if err != nil {
		return 0, err
	}
	return len(b.RawData()), nil
}

func (readStore) Put(context.Context, blocks.Block) error       { return errReadOnly }
func (readStore) PutMany(context.Context, []blocks.Block) error { return errReadOnly }
func (readStore) DeleteBlock(context.Context, cid.Cid) error    { return errReadOnly }
func (readStore) AllKeysChan(context.Context) (<-chan cid.Cid, error) {
	return nil, fmt.Errorf("list all blocks: %w", errors.ErrUnsupported)
}

// getBlock gets a block, with the error that boxo knows for one that is not there.
func getBlock(ctx context.Context, src Source, c cid.Cid) (blocks.Block, error) {
	data, ok := inlined(c)
	if !ok {
		var err error
		if data, err = src.Get(ctx, c); err != nil {
			return nil, missing(c, err)
		}
	}
	return blocks.NewBlockWithCid(data, c)
}

// fetch gets many blocks, in any order. Those that are inlined in their CIDs come first.
func fetch(ctx context.Context, src Source, cids []cid.Cid, fn func(blocks.Block) error) error {
	wanted := make([]cid.Cid, 0, len(cids))
	for _, c := range cids {
		data, ok := inlined(c)
		if !ok {
			wanted = append(wanted, c)
			continue
		}
		b, err := blocks.NewBlockWithCid(data, c)
		if err == nil {
			err = fn(b)
		}
		if err != nil {
			return err
		}
	}
	err := src.Fetch(ctx, wanted, func(b ipfs.Block) error {
		if err := keep(ctx, src, b); err != nil {
			return err
		}
		blk, err := blocks.NewBlockWithCid(b.Data, b.Cid)
		if err != nil {
			return err
		}
		return fn(blk)
	})
	if err != nil {
		return missing(cid.Undef, err)
	}
	return nil
}

// keep stores what came from a peer, as getting a block alone does, if src has a place for it.
func keep(ctx context.Context, src Source, b ipfs.Block) error {
	if cache, ok := src.(interface {
		Cache(context.Context, ...ipfs.Block) error
	}); ok && b.From != "" {
		return cache.Cache(ctx, b)
	}
	return nil
}

// missing makes ipfs.ErrNotFound what boxo knows as well.
func missing(c cid.Cid, err error) error {
	if errors.Is(err, ipfs.ErrNotFound) {
		return fmt.Errorf("%w: %w", err, ipld.ErrNotFound{Cid: c})
	}
	return err
}

// inlined returns the bytes of a small block that its CID holds itself (the hash function
// "identity"): no node need have it.
func inlined(c cid.Cid) ([]byte, bool) {
	p := c.Prefix()
	if p.MhType != mh.IDENTITY {
		return nil, false
	}
	hash, err := mh.Decode(c.Hash())
	if err != nil || len(hash.Digest) > maxInlined {
		return nil, false
	}
	return hash.Digest, true
}

// maxInlined is what boxo allows as well.
const maxInlined = 128
