// Package layer implements the layer format of spec/layer.md: a tar comes in, a DAG
// and an index go out, and the same tar comes back to the last bit.
//
// # What a layer is
//
// The layer root is one UnixFS directory block. Its links are rootfs (the files, as
// plain UnixFS of profile unixfs-v1-2025), index (all that a tar says and UnixFS does
// not, with the leaves of every file), tar-split (what gives back the original tar)
// and, only when a tar holds several entries of one path, shadowed (the contents of
// those that a later one replaced).
//
// # Algorithm
//
// Write reads the tar once, with archive/tar, which is also what containerd reads it
// with. Every entry is applied to a tree in memory by the rules containerd applies it
// to a directory, so that symlinks, replaced paths and hard links come out the same;
// file contents are cut into leaves, hashed on all cores and put in batches. When the
// stream has ended, the tree is written as an index, as UnixFS directories, and the
// root block is made. Open goes the other way and believes nothing: DecodeIndex
// accepts exactly what EncodeIndex writes, and proves each file's CID from its leaves.
// Merge lays the indexes of a chain on top of each other as overlayfs would.
//
// # Concurrency
//
// Functions are safe to call at the same time. An Index, Layer or Tree is not changed
// after it was returned and may be read by any number of goroutines. Write starts
// goroutines to hash and to put, and returns only after all of them have.
package layer

import (
	"context"
	"fmt"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/ipfs/go-cid"
)

// Source is where the blocks of a layer come from.
type Source interface {
	ipfs.Getter
	ipfs.Fetcher
}

// A Layer is an opened layer.
type Layer struct {
	Root     ipfs.Block
	Rootfs   cid.Cid
	IndexCid cid.Cid
	TarSplit cid.Cid
	Shadowed cid.Cid // cid.Undef when the layer has none
	Index    *Index
}

// Open opens the layer whose root is root.
func Open(ctx context.Context, src Source, root cid.Cid) (*Layer, error) {
	b, err := getRoot(ctx, src, root)
	if err != nil {
		return nil, err
	}
	return OpenBlock(ctx, src, b)
}

// OpenBlock opens a layer when the root block is at hand; it verifies the block.
func OpenBlock(ctx context.Context, src Source, root ipfs.Block) (*Layer, error) {
	l, raw, err := openRoot(ctx, src, root)
	if err != nil {
		return nil, err
	}
	if l.Index, err = decodeIndex(raw); err != nil {
		return nil, fmt.Errorf("open layer %s: %w", root.Cid, err)
	}
	return l, nil
}

// IndexSize returns how many bytes the index file of a layer has, whose root block is at hand.
func IndexSize(ctx context.Context, src Source, root ipfs.Block) (int64, error) {
	l, err := parseRoot(root)
	if err != nil {
		return 0, err
	}
	f, err := loadFile(ctx, src, l.IndexCid, MaxIndexFile)
	return f.Size, err
}

// Count opens a layer as Open does, for who wants no more than its root, and how many
// regular files it has, hard links counted once.
func Count(ctx context.Context, src Source, root cid.Cid) (b ipfs.Block, files int, err error) {
	if b, err = getRoot(ctx, src, root); err != nil {
		return b, 0, err
	}
	_, x, err := openEncoded(ctx, src, b)
	if err != nil {
		return b, 0, err
	}
	return b, countFiles(x), nil
}

// openEncoded opens a layer whose index stays encoded.
func openEncoded(ctx context.Context, src Source, root ipfs.Block) (*Layer, *Encoded, error) {
	l, raw, err := openRoot(ctx, src, root)
	if err != nil {
		return nil, nil, err
	}
	x, err := newEncoded(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("open layer %s: %w", root.Cid, err)
	}
	return l, x, nil
}

func getRoot(ctx context.Context, src Source, root cid.Cid) (ipfs.Block, error) {
	if _, err := mediatype.LayerDigest(root); err != nil {
		return ipfs.Block{}, fmt.Errorf("open layer: %w", err)
	}
	data, err := src.Get(ctx, root)
	if err != nil {
		return ipfs.Block{}, fmt.Errorf("open layer %s: %w", root, err)
	}
	return ipfs.Block{Cid: root, Data: data}, nil
}

// openRoot reads a layer root, which it verifies, and its index, in the pieces that
// decodeIndex takes.
func openRoot(ctx context.Context, src Source, root ipfs.Block) (*Layer, []string, error) {
	if _, err := mediatype.LayerDigest(root.Cid); err != nil {
		return nil, nil, fmt.Errorf("open layer: %w", err)
	}
	if err := ipfs.Verify(root.Cid, root.Data); err != nil {
		return nil, nil, fmt.Errorf("open layer: %w", err)
	}
	l, err := parseRoot(root)
	if err != nil {
		return nil, nil, err
	}
	f, err := loadFile(ctx, src, l.IndexCid, MaxIndexFile)
	if err != nil {
		return nil, nil, fmt.Errorf("open layer %s: index: %w", root.Cid, err)
	}
	raw, err := inflateIndex(openFile(ctx, src, f), f.Size)
	if err != nil {
		return nil, nil, fmt.Errorf("open layer %s: %w", root.Cid, err)
	}
	return l, raw, nil
}

// CheckRootfs says whether rootfs holds what the index says. Nothing that mounts a layer
// needs it, since only the index counts; whoever reads rootfs with other tools may.
func (l *Layer) CheckRootfs(ctx context.Context) error {
	c, err := BuildRootfs(ctx, l.Index, nil)
	if err != nil {
		return fmt.Errorf("check rootfs of layer %s: %w", l.Root.Cid, err)
	}
	if !c.Equals(l.Rootfs) {
		return fmt.Errorf("check rootfs of layer %s: %w: rootfs is %s, its index makes %s", l.Root.Cid, ErrViews, l.Rootfs, c)
	}
	return nil
}
