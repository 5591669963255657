package ipfs

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// The profile unixfs-v1-2025 (IPIP-0499), as far as files are concerned.
const (
	// LeafSize is the size in bytes of every leaf of a file but its last.
	LeafSize = 1 << 20
	// Width is the number of links of a full dag-pb node of a file.
	Width = 1024
	// hashSize is the length in bytes of a sha2-256 digest.
	hashSize = 32
)

// A Layout says how a file is cut: into leaves of one size, and how many of these, or of nodes, one node links to.
type Layout uint8

const (
	// LayoutFile is that of profile unixfs-v1-2025: the files of a layer.
	LayoutFile Layout = iota
	// LayoutBlob is that of blobs which are kept as they are: chunks of 262,144 bytes and 174 links a node, as importers of IPFS
	// have by default when CIDv1 is asked for.
	LayoutBlob
)

// LeafSize is the size in bytes of every leaf but the last.
func (l Layout) LeafSize() int64 {
	if l == LayoutBlob {
		return 256 << 10
	}
	return LeafSize
}

func (l Layout) width() int {
	if l == LayoutBlob {
		return 174
	}
	return Width
}

// NumLeaves returns the number of leaves of a file of size bytes.
func (l Layout) NumLeaves(size int64) int {
	each := l.LeafSize()
	return int(max(1, (size+each-1)/each))
}

// ErrFile says that a File's leaves do not make the file it claims to be.
var ErrFile = errors.New("file does not match its leaves")

// A File names a UnixFS file together with its leaves, so
// that it can be fetched without walking a DAG. A file of no more bytes than a leaf has is
// one raw leaf, whose CID is the file's, and Leaves is empty.
type File struct {
	Cid    cid.Cid
	Size   int64 // bytes
	Layout Layout
	// Leaves holds the sha2-256 digests of the leaves, 32 bytes each, one after the
	// other, for a file of more than one leaf.
	Leaves string
}

// NumLeaves returns the number of leaves: one for an empty file.
func (f File) NumLeaves() int { return f.Layout.NumLeaves(f.Size) }

// NumLeaves returns the number of leaves of a file of size bytes, of LayoutFile.
func NumLeaves(size int64) int { return LayoutFile.NumLeaves(size) }

// Leaf returns the CID of leaf i.
func (f File) Leaf(i int) cid.Cid {
	if f.Leaves == "" {
		return f.Cid
	}
	return RawCid(f.Leaves[i*hashSize : (i+1)*hashSize])
}

// LeafLen returns the size in bytes of leaf i.
func (f File) LeafLen(i int) int {
	each := f.Layout.LeafSize()
	return int(min(f.Size-int64(i)*each, each))
}

// RawCid returns the CID of the raw block with this sha2-256 digest (32 bytes).
func RawCid(digest string) cid.Cid {
	return cid.NewCidV1(cid.Raw, sha256Multihash(digest))
}

func sha256Multihash(digest string) mh.Multihash {
	h := make([]byte, 0, 2+hashSize)
	h = append(h, mh.SHA2_256, hashSize)
	return append(h, digest...)
}

// Check proves that the leaves and the size make the file's CID, by building the
// dag-pb nodes above them as the layout says. What Check accepts needs no more
// than the hashes of its leaves verified. The error is ErrFile, wrapped.
func (f File) Check() error {
	if f.Size < 0 {
		return fmt.Errorf("file %s: %w: negative size", f.Cid, ErrFile)
	}
	n := f.NumLeaves()
	if n == 1 {
		p := f.Cid.Prefix()
		if f.Leaves != "" || p.Version != 1 || p.Codec != cid.Raw || p.MhType != mh.SHA2_256 || p.MhLength != hashSize {
			return fmt.Errorf("file %s: %w: a file of %d bytes is one raw leaf", f.Cid, ErrFile, f.Size)
		}
		return nil
	}
	if len(f.Leaves) != n*hashSize {
		return fmt.Errorf("file %s: %w: %d bytes need %d leaves, %d hash bytes listed", f.Cid, ErrFile, f.Size, n, len(f.Leaves))
	}
	c, err := f.Build(nil)
	if err != nil {
		return err
	}
	if !c.Equals(f.Cid) {
		return fmt.Errorf("file %s: %w: its leaves make %s", f.Cid, ErrFile, c)
	}
	return nil
}
