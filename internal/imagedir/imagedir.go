// Package imagedir is the form that an image has on IPFS where there is no registry: a UnixFS
// directory that is an OCI image layout, with the layers beside it (spec/image.md, "On IPFS").
//
//	oci-layout, index.json   what every OCI image layout has; the image is named "latest"
//	blobs/sha256/HEX         manifests, configs and layer blobs, one raw block each
//	layers/HEX               of each layer blob, which is a layer root, the DAG
//	hints/CID                image records and profiles
//
// So one CID names all of an image, and one recursive pin keeps it. Write makes such a
// directory. Open reads one, or an image by nothing but its manifest: a raw block, whose CID
// follows from its digest. That one names what the manifest names, and keeps nothing.
//
// Whatever comes out has the digest that it was asked for by, and belongs to the image: the
// directory, or the manifest and those below it, name it. All that is read is bounded.
//
// # Concurrency
//
// The package has no state. An Image may be used by any number of goroutines.
package imagedir

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

// DefaultTag is what an image is named in its own directory.
const DefaultTag = "latest"

// Names in a directory.
const (
	nameLayout = "oci-layout"
	nameIndex  = "index.json"
	nameBlobs  = "blobs"
	nameSHA256 = "sha256"
	nameLayers = "layers"
	nameHints  = "hints"
)

// Limits of what is read for one request.
const (
	// MaxBlob is how many bytes a blob has at most: one block.
	MaxBlob = ipfs.MaxBlock
	// maxInList is how many images an index.json, manifests an index, or layers a manifest has.
	maxInList = 4096
	// maxFields is how many members an object has.
	maxFields = 256
	// maxDepth is how many indexes may be within each other.
	maxDepth = 4
	// maxWalked is how many manifests are read to find out whether an image without a
	// directory has a blob.
	maxWalked = 64
)

var (
	// ErrImage says that what a CID names is no image.
	ErrImage = errors.New("not an image")
	// ErrUnknown says that an image has no such tag, manifest or blob.
	ErrUnknown = errors.New("not a part of the image")
	// ErrRoot says that a text names no image: it is no CID, or one of another kind.
	ErrRoot = errors.New("not the CID of an image")
)

// ParseRoot parses the CID of an image as it stands in names: CIDv1 in base32, of a directory
// (dag-pb) or a manifest (raw), with a sha2-256 hash. Each has one spelling.
func ParseRoot(s string) (cid.Cid, error) {
	c, err := cid.Decode(s)
	if err != nil {
		return cid.Undef, fmt.Errorf("%.100q: %w: %w", s, ErrRoot, err)
	}
	p := c.Prefix()
	if p.Version != 1 || p.Codec != cid.Raw && p.Codec != cid.DagProtobuf || p.MhType != mh.SHA2_256 || p.MhLength != 32 {
		return cid.Undef, fmt.Errorf("%.100q: %w: want a CIDv1, dag-pb or raw, with sha2-256", s, ErrRoot)
	}
	if c.String() != s {
		return cid.Undef, fmt.Errorf("%.100q: %w: in base32 it is %s", s, ErrRoot, c)
	}
	return c, nil
}

// An Image is an image on IPFS, of which the root was read.
type Image struct {
	root cid.Cid
	src  ipfs.Fetcher
	tags map[string]digest.Digest
	// blobs are those of a directory; nil for an image that is named by its manifest.
	blobs map[digest.Digest]cid.Cid
	top   *Manifest // of an image that is named by it
}

// Open reads what a CID of ParseRoot names. The error is ErrImage, wrapped, if that is no image.
func Open(ctx context.Context, src ipfs.Fetcher, root cid.Cid) (*Image, error) {
	im := &Image{root: root, src: src}
	blocks, err := fetch(ctx, src, root)
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", root, err)
	}
	if root.Type() == cid.Raw {
		err = im.openManifest(blocks[0])
	} else {
		err = im.openDirectory(ctx, blocks[0])
	}
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", root, err)
	}
	return im, nil
}

func (im *Image) openManifest(b ipfs.Block) error {
	m, err := ParseManifest(b.Data)
	if err != nil {
		return err
	}
	d, err := mediatype.BlobDigest(b.Cid)
	if err != nil {
		return err
	}
	im.top, im.tags = m, map[string]digest.Digest{DefaultTag: d}
	return nil
}

// Tags are the names of the images in it, sorted.
func (im *Image) Tags() []string { return slices.Sorted(maps.Keys(im.tags)) }

// Tag returns the digest of the manifest or index that a tag names. The error is ErrUnknown,
// wrapped.
func (im *Image) Tag(name string) (digest.Digest, error) {
	d, ok := im.tags[name]
	if !ok {
		return "", fmt.Errorf("tag %.128q of %s: %w, which has %.200q", name, im.root, ErrUnknown, im.Tags())
	}
	return d, nil
}

// Blob returns the bytes with this digest, which may be those of a manifest. The error is
// ErrUnknown, wrapped, if they are not of this image.
func (im *Image) Blob(ctx context.Context, d digest.Digest) ([]byte, error) {
	data, err := im.blob(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("blob %s of %s: %w", d, im.root, err)
	}
	return data, nil
}

func (im *Image) blob(ctx context.Context, d digest.Digest) ([]byte, error) {
	c, err := mediatype.BlobCid(d)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	if im.blobs != nil {
		at, ok := im.blobs[d]
		if !ok {
			return nil, ErrUnknown
		}
		if !at.Equals(c) {
			return nil, fmt.Errorf("%w: it is %s and no raw block of at most %d bytes", ErrUnknown, at, MaxBlob)
		}
	} else if err := im.find(ctx, d); err != nil {
		return nil, err
	}
	blocks, err := fetch(ctx, im.src, c)
	if err != nil {
		return nil, err
	}
	return blocks[0].Data, nil
}

// Manifest returns the manifest or index with this digest. The error is ErrUnknown, wrapped, if
// it is not of this image, or is something else.
func (im *Image) Manifest(ctx context.Context, d digest.Digest) (*Manifest, error) {
	data, err := im.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s of %s: %w: %w", d, im.root, ErrUnknown, err)
	}
	return m, nil
}

// find says, with ErrUnknown, if neither the manifest nor one of those below it names a blob.
func (im *Image) find(ctx context.Context, d digest.Digest) error {
	own, err := mediatype.BlobDigest(im.root)
	if err != nil || own == d || im.top.names(d) {
		return err
	}
	w := walk{src: im.src, want: d, left: maxWalked}
	return w.below(ctx, im.top, 1)
}

// A walk looks for a blob in the manifests of an index.
type walk struct {
	src  ipfs.Fetcher
	want digest.Digest
	left int // manifests that may still be read
}

func (w *walk) below(ctx context.Context, m *Manifest, depth int) error {
	missing := ErrUnknown
	for _, ref := range m.manifests() {
		c, err := mediatype.BlobCid(ref.Digest)
		if err != nil {
			continue // what we could not give either
		}
		if w.left == 0 || depth > maxDepth {
			return missing
		}
		w.left--
		blocks, err := fetch(ctx, w.src, c)
		if errors.Is(err, ipfs.ErrNotFound) && ctx.Err() == nil {
			missing = err // another platform's, maybe
			continue
		}
		if err != nil {
			return err
		}
		below, err := ParseManifest(blocks[0].Data)
		if err != nil {
			continue // somebody's artifact
		}
		if below.names(w.want) {
			return nil
		}
		if err := w.below(ctx, below, depth+1); !errors.Is(err, ErrUnknown) {
			return err
		}
	}
	return missing
}

// fetch gets blocks, in the order of the CIDs.
func fetch(ctx context.Context, src ipfs.Fetcher, cids ...cid.Cid) ([]ipfs.Block, error) {
	found := make(map[cid.Cid]ipfs.Block, len(cids))
	err := src.Fetch(ctx, cids, func(b ipfs.Block) error {
		found[b.Cid] = b
		return nil
	})
	if err != nil {
		return nil, err
	}
	blocks := make([]ipfs.Block, 0, len(cids))
	for _, c := range cids {
		b, ok := found[c]
		if !ok {
			return nil, fmt.Errorf("block %s: %w", c, ipfs.ErrNotFound)
		}
		blocks = append(blocks, b)
	}
	return blocks, nil
}
