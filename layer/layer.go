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
	"errors"
	"io"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
)

// Source is where the blocks of a layer come from.
type Source interface {
	ipfs.Getter
	ipfs.Fetcher
}

// Result says what Write made.
type Result struct {
	Root    ipfs.Block    // the layer root
	DiffID  digest.Digest // sha256 of the tar
	Files   int           // regular files in the index, hard links not counted
	Entries int           // entries of the index
	Bytes   int64         // length of the tar
}

// WriteOptions are what a caller of Write may set.
type WriteOptions struct {
	// Progress, if set, is called with the bytes of the tar read since the last call.
	Progress func(n int64)
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

var errSkeleton = errors.New("layer: not written yet")

// Write converts a tar.
func Write(ctx context.Context, dst ipfs.Putter, tar io.Reader, opts WriteOptions) (*Result, error) {
	return nil, errSkeleton
}

// Open opens the layer whose root is root.
func Open(ctx context.Context, src Source, root cid.Cid) (*Layer, error) { return nil, errSkeleton }

// OpenBlock opens a layer when the root block is at hand; it verifies the block.
func OpenBlock(ctx context.Context, src Source, root ipfs.Block) (*Layer, error) {
	return nil, errSkeleton
}

// WriteTar writes the original tar, bit for bit.
func (l *Layer) WriteTar(ctx context.Context, src Source, w io.Writer) error { return errSkeleton }
