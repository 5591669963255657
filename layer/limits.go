package layer

import (
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Limits of the format and, where they bound work or memory, of this implementation
// (spec/layer.md, "Limits"). Whatever exceeds one is refused with ErrTooLarge.
const (
	MaxRootBlock   = 4 << 10   // bytes of a layer root
	MaxIndex       = 512 << 20 // bytes of an index before compression
	MaxIndexFile   = 256 << 20 // bytes of an index after compression
	MaxEntries     = 4 << 20   // entries of an index
	MaxName        = 255       // bytes of a path component
	MaxDepth       = 4096      // components of a path
	MaxTarget      = 4095      // bytes of a symlink target
	MaxFile        = 1 << 40   // bytes of a file
	MaxSparse      = 1 << 36   // bytes that the sparse files of one layer expand to
	MaxXattrValue  = 64 << 10  // bytes of one extended attribute
	MaxXattrs      = 128 << 10 // bytes of all extended attributes of one entry, names included
	MaxPayloads    = 16 << 20  // payloads of a tar-split
	MaxMerge       = 8 << 20   // entries of all layers of a merge
	MaxMetadata    = 1 << 30   // bytes of the names, targets and extended attributes that one tar has
	MaxWork        = 1 << 28   // steps along paths that one tar, or one merge, may cause
	MaxImageRecord = 1 << 20   // bytes of an image record
	MaxImageLayers = 512       // layers of an image record
	MaxImagePeers  = 64        // peers of an image record
	MaxImagePeer   = 1 << 10   // bytes of a peer's address
	MaxImageSeeds  = 64        // seeds of other images in an image record

	MaxProfileBlock = 1 << 20 // bytes of a profile
)

// sumSize is the length in bytes of a sha2-256 digest.
const sumSize = 32

// dagCid returns the CIDv1 of the dag-pb block with this sha2-256 digest.
func dagCid(digest string) cid.Cid {
	h := make([]byte, 0, 2+len(digest))
	h = append(h, mh.SHA2_256, byte(len(digest)))
	return cid.NewCidV1(cid.DagProtobuf, append(h, digest...))
}

// sumOf returns the sha2-256 digest in a CID that NewBlock made.
func sumOf(c cid.Cid) string { return string(c.Hash()[2:]) }
