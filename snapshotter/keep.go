//go:build linux

package snapshotter

import (
	"context"
	"log/slog"
	"os"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// What a snapshot cannot be mounted without, its layer root and its index, is kept on this
// node, so that it can be mounted when there is no peer, as after a reboot.

// A keeper is a source that stores what it fetches. A node stores the single blocks that it
// gets, as layer roots, indexes of one leaf and the nodes of larger ones; but not the leaves
// that it fetches, since of files these go into objects.
type keeper struct {
	layer.Source
	node cacher
	log  *slog.Logger
}

// A cacher stores blocks that came from elsewhere.
type cacher interface {
	Cache(ctx context.Context, blocks ...ipfs.Block) error
}

// keepFrom returns src as a keeper, or as it is if it stores nothing.
func keepFrom(src layer.Source, log *slog.Logger) layer.Source {
	if node, ok := src.(cacher); ok {
		return &keeper{src, node, log}
	}
	return src
}

// reader returns the source without a keeper.
func (o *opener) reader() layer.Source {
	if k, ok := o.src.(*keeper); ok {
		return k.Source
	}
	return o.src
}

// Fetch implements layer.Source. What is here already is stored once more, so that the store knows
// that it is used again.
func (k *keeper) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return k.Source.Fetch(ctx, cids, func(b ipfs.Block) error {
		k.put(ctx, b)
		return fn(b)
	})
}

// put stores a block, if it can: what is asked for now is here, stored or not.
func (k *keeper) put(ctx context.Context, b ipfs.Block) {
	if err := k.node.Cache(ctx, b); err != nil && ctx.Err() == nil {
		k.log.Warn("what a layer is mounted by is not kept; the next daemon needs a peer that has it", "block", b.Cid, "err", err)
	}
}

// keep stores a root that came in an image record, and so not as a block of the node.
func (o *opener) keep(ctx context.Context, root ipfs.Block) {
	if k, ok := o.src.(*keeper); ok {
		k.put(ctx, root)
	}
}

// restoreRoots gives the node the layer roots that lie beside snapshots and that it has not:
// it writes blocks down some seconds late, and a process before may have been killed.
func (s *Snapshotter) restoreRoots(ctx context.Context, roots map[cid.Cid]string) {
	k, ok := s.opener.src.(*keeper)
	if !ok {
		return
	}
	local, ok := k.Source.(ipfs.Local)
	if !ok {
		return
	}
	for root, id := range roots {
		if has, err := local.Has(ctx, root); has || err != nil {
			continue // an error comes again when the layer is opened
		}
		block, err := os.ReadFile(s.rootPath(id))
		if err == nil {
			err = ipfs.Verify(root, block)
		}
		if err != nil {
			s.log.Warn("the root of a layer is not here: a peer must have it", "root", root, "err", err)
			continue
		}
		k.put(ctx, ipfs.Block{Cid: root, Data: block})
	}
}
