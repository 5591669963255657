package layer

import (
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// Limits of the format. Whatever exceeds one is refused with ErrTooLarge.
const (
	MaxRootBlock    = 4 << 10   // bytes of a layer root
	MaxIndex        = 512 << 20 // bytes of an index before compression
	MaxEntries      = 4 << 20   // entries of an index
	MaxName         = 255       // bytes of a path component
	MaxDepth        = 4096      // components of a path
	MaxTarget       = 4095      // bytes of a symlink target
	MaxXattrs       = 64 << 10  // bytes of all extended attributes of one entry, and of one value
	MaxImageRecord  = 1 << 20   // bytes of an image record
	MaxImageLayers  = 512
	MaxImagePeers   = 64
	MaxTarSplitTail = 64 << 20 // bytes of the table of a tar-split
)

// dagCid returns the CIDv1 of the dag-pb block with this sha2-256 digest.
func dagCid(digest string) cid.Cid {
	h := make([]byte, 0, 2+len(digest))
	h = append(h, mh.SHA2_256, byte(len(digest)))
	return cid.NewCidV1(cid.DagProtobuf, mh.Multihash(append(h, digest...)))
}
