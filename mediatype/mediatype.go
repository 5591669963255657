// Package mediatype names everything ipcs writes into an image: media types,
// annotations, and the mapping between digests and CIDs.
//
// A layer descriptor names one block, the layer root (a dag-pb node). Its digest
// is the sha256 of the block's bytes, so digest and CID hold the same 32 bytes and
// either follows from the other by arithmetic (spec/layer.md, "Descriptor"). Likewise any blob
// of an image that is one raw block on IPFS (spec/image.md, "On IPFS").
//
// The package has no state and imports nothing else of ipcs.
package mediatype

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"
)

// Layer is the media type of a layer descriptor whose blob is a layer root.
// The prefix is the only one that stock containerd takes for layers without
// configuration on every path a pull can go.
const Layer = "application/vnd.oci.image.layer.ipcs.unixfs.v1"

// What an image has beside it (spec/seed.md): the seeds of its layers, and a manifest that lists these, the image
// record and the profile, so that registries keep them.
const (
	Seed  = "application/vnd.ipcs.seed.v1+zstd"
	Seeds = "application/vnd.ipcs.seeds.v1+json" // artifact type of the manifest
	// Record and Profile are the blocks that the layers name.
	Record  = "application/vnd.ipcs.image.v1+json"
	Profile = "application/vnd.ipcs.profile.v1"
)

// Annotations of a layer descriptor. Those under containerd.io/snapshot/ reach the
// snapshotter as labels; they are hints and never decide what a file contains.
const (
	// AnnotationRoot marks a layer as an ipcs layer for the snapshotter. Its value
	// is the CID of the layer root, and must agree with the diffID.
	AnnotationRoot = "containerd.io/snapshot/ipcs.root"
	// AnnotationImage is the CID of the image record (see package layer).
	AnnotationImage = "containerd.io/snapshot/ipcs.image"
	// AnnotationKeep, if it is "true", says that the config was left as it was: its
	// diffIDs are digests of tars and prove nothing of layer roots (spec/image.md,
	// "Kept diffIDs").
	AnnotationKeep = "containerd.io/snapshot/ipcs.keep-diff-ids"
	// AnnotationFill, "true" or "false", says whether all files of an image should be fetched
	// when a container uses it. That of the topmost ipcs layer counts.
	AnnotationFill = "containerd.io/snapshot/ipcs.fill"
	// AnnotationPeers names peers that have the image, as multiaddrs with a comma between them.
	AnnotationPeers = "containerd.io/snapshot/ipcs.peers"
	// AnnotationOrigin is the repository of a registry that has the seeds of the image, as HOST/NAME.
	AnnotationOrigin = "containerd.io/snapshot/ipcs.origin"
	// AnnotationSeedsOf, on the descriptor of a manifest of seeds, is the digest of the image's.
	AnnotationSeedsOf = "com.github.hinshun.ipcs.seeds-of"
	// AnnotationSeedLayer, on a seed, is the digest of the layer whose it is.
	AnnotationSeedLayer = "com.github.hinshun.ipcs.seed.layer"
	// AnnotationSeedHead, on a seed, is where its head begins.
	AnnotationSeedHead = "com.github.hinshun.ipcs.seed.head"
	// AnnotationDiffID is the diffID of the layer that was converted: the sha256 of
	// its uncompressed tar.
	AnnotationDiffID = "com.github.hinshun.ipcs.diff-id"
	// AnnotationBlob, on a config or a layer that is kept as it is, is the CID of the UnixFS file of its bytes (spec/image.md, "Chunked
	// blobs").
	AnnotationBlob = "com.github.hinshun.ipcs.blob"
	// AnnotationSource is the digest of the layer blob that was converted.
	AnnotationSource = "com.github.hinshun.ipcs.source"
)

// Annotations of a converted manifest (spec/image.md, "The original").
const (
	// AnnotationManifest is the digest of the manifest that it was converted from.
	AnnotationManifest = "com.github.hinshun.ipcs.source-manifest"
	// AnnotationManifestData is that manifest, and AnnotationConfigData its config:
	// the base64 of a zstd frame of the bytes.
	AnnotationManifestData = "com.github.hinshun.ipcs.source-manifest.data"
	AnnotationConfigData   = "com.github.hinshun.ipcs.source-config.data"
)

// MaxPeersAnnotation bounds the bytes of AnnotationPeers: containerd takes no label of more than
// 4,096 bytes with its name.
const MaxPeersAnnotation = 2048

// ErrNotLayerRoot is returned for a CID or digest that cannot name a layer root.
var ErrNotLayerRoot = errors.New("not a layer root")

// ErrNotBlob is returned for a CID or digest that cannot name a blob of one block.
var ErrNotBlob = errors.New("not a blob of one block")

// RootCid returns the CID of the layer root that a layer digest names: CIDv1,
// dag-pb, sha2-256.
func RootCid(d digest.Digest) (cid.Cid, error) {
	hash, err := multihash(d, ErrNotLayerRoot)
	if err != nil {
		return cid.Undef, fmt.Errorf("layer digest %q: %w", d, err)
	}
	return cid.NewCidV1(cid.DagProtobuf, hash), nil
}

// LayerDigest returns the digest of the layer descriptor for the layer root c: the
// inverse of RootCid.
func LayerDigest(c cid.Cid) (digest.Digest, error) {
	if !named(c, cid.DagProtobuf) {
		return "", fmt.Errorf("%s: %w: want CIDv1, dag-pb, sha2-256", c, ErrNotLayerRoot)
	}
	return digestOf(c)
}

// BlobCid returns the CID of the raw block that is the blob with this digest: CIDv1, raw,
// sha2-256. So manifests, configs and layer blobs have it on IPFS.
func BlobCid(d digest.Digest) (cid.Cid, error) {
	hash, err := multihash(d, ErrNotBlob)
	if err != nil {
		return cid.Undef, fmt.Errorf("digest %q: %w", d, err)
	}
	return cid.NewCidV1(cid.Raw, hash), nil
}

// BlobDigest returns the digest of the blob that is the raw block c: the inverse of BlobCid.
func BlobDigest(c cid.Cid) (digest.Digest, error) {
	if !named(c, cid.Raw) {
		return "", fmt.Errorf("%s: %w: want CIDv1, raw, sha2-256", c, ErrNotBlob)
	}
	return digestOf(c)
}

// multihash is the hash in a digest. Of another algorithm than sha256, the error is not.
func multihash(d digest.Digest, not error) (mh.Multihash, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	if d.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("%w: its algorithm is not sha256", not)
	}
	sum, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return nil, err
	}
	return mh.Encode(sum, mh.SHA2_256)
}

// named says whether c is a CIDv1 of this codec with sha2-256.
func named(c cid.Cid, codec uint64) bool {
	p := c.Prefix()
	return p.Version == 1 && p.Codec == codec && p.MhType == mh.SHA2_256 && p.MhLength == 32
}

// digestOf is the digest in a CID with sha2-256.
func digestOf(c cid.Cid) (digest.Digest, error) {
	dec, err := mh.Decode(c.Hash())
	if err != nil {
		return "", fmt.Errorf("%s: %w", c, err)
	}
	return digest.NewDigestFromBytes(digest.SHA256, dec.Digest), nil
}
