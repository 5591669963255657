package convert

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// A Look is a manifest of a source, for who converts nothing.
type Look struct {
	Digest   digest.Digest
	Platform string
	Layers   []LookLayer // bottom first
}

// A LookLayer is one layer of it.
type LookLayer struct {
	Desc ocispec.Descriptor // of the blob as an ordinary image has it; no digest if that is not known
	// DiffID is that of the tar; empty if it is not known.
	DiffID digest.Digest
	// Root is the digest of the layer root of an ipcs layer; empty for others.
	Root digest.Digest
}

// A Looker reads images without converting them. Its methods may be called at the same time.
type Looker struct {
	Source Source
	Node   Node // for what is on IPFS; nil if nothing is
	// Platforms are as in Options.
	Platforms []ocispec.Platform
	// Workers is how many goroutines work on one layer; 0 is one for each core.
	Workers int
	large   turn
}

// NewLooker returns a Looker. All of those that are of one Looker read one very large layer at a time.
func NewLooker(node Node, platforms []ocispec.Platform) *Looker {
	return &Looker{Node: node, Platforms: platforms, large: newTurn()}
}

// At returns the Looker for another source.
func (l *Looker) At(src Source) *Looker {
	at := *l
	at.Source = src
	return &at
}

// Manifests returns the manifests that are wanted. note is told what is left out.
func (l *Looker) Manifests(ctx context.Context, note func(string)) ([]Look, error) {
	opts := Options{Source: l.Source, Node: l.Node, Platforms: l.Platforms, Progress: notes{note: note}}
	opts.useNode()
	_, ims, err := opts.load(ctx, checkTarOrIpcs, false)
	if err != nil {
		return nil, err
	}
	var looks []Look
	for _, im := range ims {
		look := Look{Digest: im.desc.Digest, Platform: platforms.FormatAll(im.platform)}
		original, err := im.original()
		if err != nil && !errors.Is(err, errNoOriginal) {
			return nil, fmt.Errorf("manifest %s: %w", im.desc.Digest, err)
		}
		for i, layer := range im.layers {
			seen := LookLayer{Desc: layer.desc, DiffID: layer.diffID}
			if layer.desc.MediaType == mediatype.Layer {
				seen = LookLayer{Root: layer.desc.Digest}
				if original != nil {
					seen.Desc, seen.DiffID = original.layers[i].desc, original.layers[i].diffID
				}
			}
			look.Layers = append(look.Layers, seen)
		}
		looks = append(looks, look)
	}
	return looks, nil
}

// notes is a Progress of which only notes are of use.
type notes struct {
	noProgress
	note func(string)
}

// Note implements Progress.
func (n notes) Note(text string) { n.note(text) }

// Read reads an ordinary layer as it would be converted: dst gets its blocks, and index the bytes of its index file, which layer.ReadIndex reads. read is told of
// bytes of the blob. All digests are checked.
func (l *Looker) Read(ctx context.Context, seen LookLayer, dst ipfs.Putter, index io.Writer, read func(int64)) (*layer.Result, error) {
	r := layerReader{l.Source, dst, l.large, read, index, l.Workers}
	result, err := r.read(ctx, sourceLayer{seen.Desc, seen.DiffID})
	if err != nil {
		return nil, err
	}
	if result.DiffID != seen.DiffID {
		return nil, fmt.Errorf("%w: its tar has the digest %s, and the diffID in the config is %s", ErrCorrupt, result.DiffID, seen.DiffID)
	}
	return result, nil
}

// Index returns the index of an ipcs layer, and the bytes of its index file, from a node. No file's data is read.
func (l *Looker) Index(ctx context.Context, node Node, seen LookLayer) (*layer.Encoded, int64, error) {
	root, err := mediatype.RootCid(seen.Root)
	if err != nil {
		return nil, 0, err
	}
	block, index, err := layer.OpenEncoded(ctx, node, root)
	if err != nil {
		return nil, 0, err
	}
	size, err := layer.IndexSize(ctx, node, block)
	return index, size, err
}
