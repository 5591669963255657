// Package ipfs is the only door to an IPFS node: blocks in, verified blocks out,
// pins that keep them.
//
// A Node is small on purpose, so that an embedded node, a Kubo daemon and the
// in-memory node of the tests all pass one suite (ipfs/ipfstest). Nothing that
// comes out of a Node may be unverified: an implementation checks the hash of
// every block it did not hash itself, and VerifiedBlock says that it was done.
//
// All methods of all types here are safe for concurrent use.
package ipfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// MaxBlock is the size in bytes above which a block is refused everywhere: the
// limit that every IPFS implementation shares (2 MiB).
const MaxBlock = 2 << 20

var (
	// ErrNotFound says that neither this node nor any peer it asked gave the block.
	ErrNotFound = errors.New("block not found")
	// ErrHash says that bytes do not hash to the CID they were offered for.
	ErrHash = errors.New("block does not match its CID")
	// ErrTooLarge says that a block is larger than MaxBlock.
	ErrTooLarge = fmt.Errorf("block is larger than %d bytes", MaxBlock)
)

// A Block is bytes and the CID they hash to. Data must not be changed.
type Block struct {
	Cid  cid.Cid
	Data []byte
	From string // ID of the peer that it came from, where Fetch knows; empty for this node
	// What this package hashed, so that Check need not do so again. It is compared with
	// the fields above, which others may have set anew since.
	hashed struct {
		cid  cid.Cid
		data []byte
	}
}

// Check verifies a block, as Verify does, unless NewBlock or VerifiedBlock made it: hashing is most of what
// storing a block costs.
func (b Block) Check() error {
	h := b.hashed
	if h.cid.Defined() && h.cid.Equals(b.Cid) && len(h.data) == len(b.Data) && unsafe.SliceData(h.data) == unsafe.SliceData(b.Data) {
		return nil
	}
	return Verify(b.Cid, b.Data)
}

// A Getter returns verified blocks, from this node or from peers.
type Getter interface {
	// Get returns the bytes of one block. The error is ErrNotFound, wrapped with
	// what was tried, when nobody had it before ctx or the node's limit ran out.
	Get(ctx context.Context, c cid.Cid) ([]byte, error)
}

// A Fetcher gets many blocks at once.
type Fetcher interface {
	// Fetch calls fn with each of the blocks, verified, in the order they arrive,
	// from one goroutine at a time. Blocks that are not on this node are fetched
	// from peers and not stored: the caller decides where they go. Fetch returns
	// when all were delivered, with the first error of fn, or with ErrNotFound for
	// blocks that could not be had.
	Fetch(ctx context.Context, cids []cid.Cid, fn func(Block) error) error
}

// A Putter stores blocks. Put verifies what it is given and returns when the blocks
// can be read back; they are durable once a Pin that came later returned.
type Putter interface {
	Put(ctx context.Context, blocks ...Block) error
}

// A Pin keeps a DAG. The name says what for; a root may be pinned under several
// names, and stays while one is left.
type Pin struct {
	Root cid.Cid
	Name string
}

// A Pinner keeps DAGs from being collected.
type Pinner interface {
	// Pin makes all that was Put before durable, and then the pin.
	Pin(ctx context.Context, pin Pin) error
	// Unpin removes one pin. Removing one that is not there is no error.
	Unpin(ctx context.Context, pin Pin) error
	// Pins lists the pins with exactly this name, or all for the empty name.
	Pins(ctx context.Context, name string) ([]Pin, error)
}

// Local answers for this node alone, without asking peers.
type Local interface {
	Has(ctx context.Context, c cid.Cid) (bool, error)
}

// A Node is an IPFS node as the rest of ipcs sees it.
type Node interface {
	Getter
	Fetcher
	Putter
	Pinner
	Local
	io.Closer
}

// NewBlock hashes data with sha2-256 and returns the block, as CIDv1 with the given
// codec (cid.Raw or cid.DagProtobuf).
func NewBlock(codec uint64, data []byte) (Block, error) {
	if len(data) > MaxBlock {
		return Block{}, ErrTooLarge
	}
	hash, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		return Block{}, fmt.Errorf("hash block: %w", err)
	}
	return hashed(cid.NewCidV1(codec, hash), data), nil
}

// VerifiedBlock verifies data, as Verify does, and returns it as a block that Check need
// not hash again.
func VerifiedBlock(c cid.Cid, data []byte) (Block, error) {
	if err := Verify(c, data); err != nil {
		return Block{}, err
	}
	return hashed(c, data), nil
}

func hashed(c cid.Cid, data []byte) Block {
	b := Block{Cid: c, Data: data}
	b.hashed.cid, b.hashed.data = c, data
	return b
}

// Verify checks that data hashes to c. The error is ErrHash or ErrTooLarge, wrapped
// with the CID. Hash functions other than sha2-256 are refused: nothing in ipcs
// uses them, and identity hashes would verify anything.
func Verify(c cid.Cid, data []byte) error {
	if len(data) > MaxBlock {
		return fmt.Errorf("block %s: %w", c, ErrTooLarge)
	}
	p := c.Prefix()
	if p.MhType != mh.SHA2_256 || p.MhLength != 32 {
		return fmt.Errorf("block %s: %w: its hash is not sha2-256", c, ErrHash)
	}
	hash, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		return fmt.Errorf("block %s: %w", c, err)
	}
	if string(hash) != string(c.Hash()) {
		return fmt.Errorf("block %s: %w", c, ErrHash)
	}
	return nil
}
