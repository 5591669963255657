// Package mediatype names everything ipcs writes into an image: media types,
// annotations, and the mapping between the digest of a layer descriptor and the
// CID of the layer root.
//
// A layer descriptor names one block, the layer root (a dag-pb node). Its digest
// is the sha256 of the block's bytes, so digest and CID hold the same 32 bytes and
// either follows from the other by arithmetic (spec/layer.md, "Descriptor").
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
	// AnnotationDiffID is the diffID of the layer that was converted: the sha256 of
	// its uncompressed tar.
	AnnotationDiffID = "com.github.hinshun.ipcs.diff-id"
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

// ErrNotLayerRoot is returned for a CID or digest that cannot name a layer root.
var ErrNotLayerRoot = errors.New("not a layer root")

// RootCid returns the CID of the layer root that a layer digest names: CIDv1,
// dag-pb, sha2-256.
func RootCid(d digest.Digest) (cid.Cid, error) {
	if err := d.Validate(); err != nil {
		return cid.Undef, fmt.Errorf("layer digest %q: %w", d, err)
	}
	if d.Algorithm() != digest.SHA256 {
		return cid.Undef, fmt.Errorf("layer digest %q: %w: its algorithm is not sha256", d, ErrNotLayerRoot)
	}
	sum, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return cid.Undef, fmt.Errorf("layer digest %q: %w", d, err)
	}
	hash, err := mh.Encode(sum, mh.SHA2_256)
	if err != nil {
		return cid.Undef, fmt.Errorf("layer digest %q: %w", d, err)
	}
	return cid.NewCidV1(cid.DagProtobuf, hash), nil
}

// LayerDigest returns the digest of the layer descriptor for the layer root c: the
// inverse of RootCid.
func LayerDigest(c cid.Cid) (digest.Digest, error) {
	p := c.Prefix()
	if p.Version != 1 || p.Codec != cid.DagProtobuf || p.MhType != mh.SHA2_256 || p.MhLength != 32 {
		return "", fmt.Errorf("%s: %w: want CIDv1, dag-pb, sha2-256", c, ErrNotLayerRoot)
	}
	dec, err := mh.Decode(c.Hash())
	if err != nil {
		return "", fmt.Errorf("%s: %w", c, err)
	}
	return digest.NewDigestFromBytes(digest.SHA256, dec.Digest), nil
}
