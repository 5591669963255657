package convert

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// A layerKey tells layers apart. A blob that two configs give different diffIDs is two
// layers, of which one will be found corrupt.
type layerKey struct{ blob, diffID digest.Digest }

func (l sourceLayer) key() layerKey { return layerKey{l.desc.Digest, l.diffID} }

// pinName is the name under which the root of a converted layer is pinned. It binds
// the diffID too: otherwise a config could claim any diffID for a blob that is known.
func (k layerKey) pinName() string {
	return "ipcs:unixfs-v1:" + k.blob.String() + "@" + k.diffID.String()
}

// A converted layer.
type converted struct {
	root   ipfs.Block
	digest digest.Digest // of the root block
	report LayerReport
}

// A converter makes layers.
type converter struct {
	src      Source
	dst      Target
	node     Node
	progress Progress
	workers  int
	large    turn
}

// layers converts every distinct layer of the images once.
func (c *converter) layers(ctx context.Context, ims []*image) (map[layerKey]*converted, error) {
	var list []sourceLayer
	out := map[layerKey]*converted{}
	for _, im := range ims {
		for _, l := range im.layers {
			if _, ok := out[l.key()]; !ok {
				out[l.key()] = new(converted)
				list = append(list, l)
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.workers)
	for i, l := range list {
		dst := out[l.key()]
		info := LayerInfo{Number: i + 1, Total: len(list), Digest: l.desc.Digest, Size: l.desc.Size}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.layer(ctx, l, info, dst)
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return out, nil
}

// layer converts one layer, or finds that this was done before, and pushes its root.
func (c *converter) layer(ctx context.Context, l sourceLayer, info LayerInfo, dst *converted) error {
	progress := c.progress.Layer(info)
	err := c.convertOrReuse(ctx, l, progress, dst)
	if err == nil {
		err = c.dst.Push(ctx, ocispec.Descriptor{
			MediaType: mediatype.Layer,
			Digest:    dst.digest,
			Size:      int64(len(dst.root.Data)),
		}, dst.root.Data)
	}
	if err != nil {
		err = fmt.Errorf("layer %s: %w", l.desc.Digest, err)
		progress.Failed(err)
		return err
	}
	progress.Done(dst.report)
	return nil
}

func (c *converter) convertOrReuse(ctx context.Context, l sourceLayer, progress LayerProgress, dst *converted) error {
	known, err := c.reuse(ctx, l)
	if err != nil {
		return err
	}
	if known == nil {
		if known, err = c.convert(ctx, l, progress); err != nil {
			return err
		}
	}
	*dst = *known
	return nil
}

// reuse returns what an earlier conversion of the layer made, or nil.
func (c *converter) reuse(ctx context.Context, l sourceLayer) (*converted, error) {
	pins, err := c.node.Pins(ctx, l.key().pinName())
	if err != nil {
		return nil, fmt.Errorf("look for an earlier conversion on the node: %w", err)
	}
	for _, pin := range pins {
		known, err := c.open(ctx, pin, l)
		if err == nil {
			return known, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		c.progress.Note(fmt.Sprintf("layer %s is converted again: what is pinned for it is no good: %v", l.desc.Digest, err))
	}
	return nil, nil
}

// open checks that a pinned layer is on this node, and is a layer by today's format.
func (c *converter) open(ctx context.Context, pin ipfs.Pin, l sourceLayer) (*converted, error) {
	if ok, err := c.node.Has(ctx, pin.Root); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("block %s: %w on this node", pin.Root, ipfs.ErrNotFound)
	}
	root, files, err := layer.Count(ctx, c.node, pin.Root)
	if err != nil {
		return nil, err
	}
	return newConverted(l, root, LayerReport{Files: files, Reused: true})
}

// convert reads a layer and writes it to the node.
func (c *converter) convert(ctx context.Context, l sourceLayer, progress LayerProgress) (*converted, error) {
	result, err := c.write(ctx, l, progress)
	if err != nil {
		return nil, err
	}
	if result.DiffID != l.diffID {
		return nil, fmt.Errorf("%w: its tar has the digest %s, and the diffID in the config is %s", ErrCorrupt, result.DiffID, l.diffID)
	}
	if err := c.node.Pin(ctx, ipfs.Pin{Root: result.Root.Cid, Name: l.key().pinName()}); err != nil {
		return nil, fmt.Errorf("pin %s: %w", result.Root.Cid, err)
	}
	return newConverted(l, result.Root, LayerReport{Bytes: result.Bytes, Files: result.Files})
}

// write streams a blob through decompression into layer.Write, and checks all of it.
func (c *converter) write(ctx context.Context, l sourceLayer, progress LayerProgress) (*layer.Result, error) {
	r := layerReader{src: c.src, dst: c.node, large: c.large, count: progress.Read}
	return r.read(ctx, l)
}

// A layerReader reads the tars of layers.
type layerReader struct {
	src     Source
	dst     ipfs.Putter // gets the blocks of the layer
	large   turn
	count   func(int64) // bytes of the blob that were read
	index   io.Writer   // gets the index file; nil for nobody
	workers int         // of layer.WriteOptions
}

func (r layerReader) read(ctx context.Context, l sourceLayer) (*layer.Result, error) {
	fetch, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	rc, err := r.src.Fetch(fetch, l.desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	blob, err := newVerifier(sourceReader{rc}, l.desc, r.count)
	if err != nil {
		return nil, err
	}
	tar, err := decompress(blob)
	if err != nil {
		return nil, err
	}
	done := func() {}
	defer func() { done() }()
	large := func() (err error) {
		done, err = r.large.take(ctx)
		return err
	}
	result, err := layer.Write(ctx, putter{r.dst, cancel}, tar, layer.WriteOptions{Large: large, Index: r.index, Workers: r.workers})
	if err != nil && !errors.Is(err, layer.ErrTar) {
		cancel(err)
		err = context.Cause(fetch) // what failed first
	}
	// Closing waits for the decompressor's goroutines: blob is ours after it.
	if closeErr := tar.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("decompress: %w", closeErr)
	}
	if err != nil && !errors.Is(err, layer.ErrTar) {
		return nil, err
	}
	// What follows the compressed stream belongs to the blob's digest as well. And a damaged
	// blob often decompresses to what is no tar: that it is damaged is then what to say.
	if _, rerr := io.Copy(io.Discard, blob); rerr != nil {
		return nil, rerr
	}
	return result, err
}

// A putter stops the reading of a layer when it cannot be stored: a source may be slow,
// and nobody would notice before it sends more.
type putter struct {
	ipfs.Putter
	cancel context.CancelCauseFunc
}

func (p putter) Put(ctx context.Context, blocks ...ipfs.Block) error {
	err := p.Putter.Put(ctx, blocks...)
	if err != nil {
		p.cancel(err)
	}
	return err
}

func newConverted(l sourceLayer, root ipfs.Block, report LayerReport) (*converted, error) {
	d, err := mediatype.LayerDigest(root.Cid)
	if err != nil {
		return nil, err
	}
	report.Source, report.DiffID = l.desc.Digest, l.diffID
	report.Digest, report.Cid = d, root.Cid.String()
	return &converted{root: root, digest: d, report: report}, nil
}
