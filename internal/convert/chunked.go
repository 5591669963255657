package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

// chunkBatch is how many bytes of chunks a node is given at a time.
const chunkBatch = 4 << 20

// Chunked copies an image whose layers and configs are on the node as well, each cut into chunks (ipfs.LayoutBlob), and whose manifests say by which
// roots (spec/image.md, "Chunked blobs"). All but the manifests stays what it was, to the last byte.
func Chunked(ctx context.Context, opts Options) (*Report, error) {
	start := time.Now()
	w, ims, err := opts.begin(ctx, checkTar, false)
	if err != nil {
		return nil, err
	}
	c := &chunker{publisher: publisher{src: opts.Source, dst: opts.Target, node: opts.Node, progress: opts.Progress}, workers: opts.Workers}
	if opts.RootDigests {
		if c.namer, err = namerOf(opts.Target); err != nil {
			return nil, err
		}
	}
	if err := c.layers(ctx, ims); err != nil {
		return nil, fmt.Errorf("convert %s: %w", opts.Source, err)
	}
	report := &Report{}
	var manifests []document
	for _, im := range ims {
		m, err := c.manifest(ctx, im)
		if err != nil {
			return nil, fmt.Errorf("write %s: manifest %s: %w", opts.Target, im.desc.Digest, err)
		}
		manifests = append(manifests, m)
		report.Manifests = append(report.Manifests, c.report(im, m.desc.Digest))
	}
	if report.Digest, err = tag(ctx, opts.Target, manifests, w.annotations); err != nil {
		return nil, fmt.Errorf("write %s: %w", opts.Target, err)
	}
	opts.finish(report, start)
	return report, nil
}

// A chunker puts blobs on a node, and copies them to the target.
type chunker struct {
	publisher
	workers int
	namer   namer // nil: digests are those of bytes
	blobs   map[digest.Digest]*LayerReport
}

// chunkedPin is the name under which the root of a blob is pinned.
func chunkedPin(d digest.Digest) string { return "ipcs:blob-v1:" + d.String() }

// layers puts every distinct layer of the images on the node and into the target once.
func (c *chunker) layers(ctx context.Context, ims []*image) error {
	c.blobs = map[digest.Digest]*LayerReport{}
	var list []sourceLayer
	for _, im := range ims {
		for _, l := range im.layers {
			if c.blobs[l.desc.Digest] == nil {
				c.blobs[l.desc.Digest] = &LayerReport{Source: l.desc.Digest, DiffID: l.diffID, Digest: l.desc.Digest}
				list = append(list, l)
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.workers)
	for i, l := range list {
		report := c.blobs[l.desc.Digest]
		info := LayerInfo{Number: i + 1, Total: len(list), Digest: l.desc.Digest, Size: l.desc.Size}
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.layer(ctx, l.desc, info, report)
		})
	}
	return group.Wait()
}

func (c *chunker) layer(ctx context.Context, desc ocispec.Descriptor, info LayerInfo, report *LayerReport) error {
	progress := c.progress.Layer(info)
	err := c.put(ctx, desc, progress, report)
	if err != nil {
		err = fmt.Errorf("layer %s: %w", desc.Digest, err)
		progress.Failed(err)
		return err
	}
	progress.Done(*report)
	return nil
}

// put puts a layer on the node and into the target. It is read once, unless the target copies blobs in a better way.
func (c *chunker) put(ctx context.Context, desc ocispec.Descriptor, progress LayerProgress, report *LayerReport) error {
	if c.namer != nil {
		return c.putNamed(ctx, desc, progress, report)
	}
	root, err := c.reuse(ctx, desc)
	if err != nil {
		return err
	}
	if report.Reused = root.Defined(); report.Reused {
		report.Cid = root.String()
		return c.copyBlob(ctx, c.src, desc)
	}
	report.Bytes = desc.Size
	chunk := func(w io.Writer) error {
		root, err := c.chunk(ctx, desc, progress, w)
		report.Cid = root.String()
		return err
	}
	if _, ok := c.dst.(copier); ok {
		if err := chunk(io.Discard); err != nil {
			return err
		}
		return c.copyBlob(ctx, c.src, desc)
	}
	got, err := c.dst.PushStream(ctx, desc.MediaType, chunk)
	if err == nil && got.Digest != desc.Digest {
		err = fmt.Errorf("%w: it was stored as %s", ErrCorrupt, got.Digest)
	}
	return err
}

// chunk puts a blob of the source on the node, and writes it to w.
func (c *chunker) chunk(ctx context.Context, desc ocispec.Descriptor, progress LayerProgress, w io.Writer) (cid.Cid, error) {
	return c.blob(ctx, desc, func(read func(io.Reader) error) error {
		rc, err := c.src.Fetch(ctx, desc)
		if err != nil {
			return err
		}
		defer rc.Close()
		blob, err := newVerifier(sourceReader{rc}, desc, progress.Read)
		if err != nil {
			return err
		}
		return read(io.TeeReader(blob, w))
	})
}

// reuse returns the root of a blob that the node has, or none.
func (c *chunker) reuse(ctx context.Context, desc ocispec.Descriptor) (cid.Cid, error) {
	pins, err := c.node.Pins(ctx, chunkedPin(desc.Digest))
	if err != nil {
		return cid.Undef, fmt.Errorf("look for an earlier conversion on the node: %w", err)
	}
	for _, pin := range pins {
		here, err := c.node.Has(ctx, pin.Root)
		if err != nil {
			return cid.Undef, err
		}
		if !here {
			continue
		}
		if _, err := ipfs.LoadFile(ctx, c.node, pin.Root, desc.Size, ipfs.LayoutBlob); err == nil {
			return pin.Root, nil
		}
	}
	return cid.Undef, ctx.Err()
}

// blob puts what read gives on the node, and pins its root.
func (c *chunker) blob(ctx context.Context, desc ocispec.Descriptor, open func(read func(io.Reader) error) error) (cid.Cid, error) {
	f := ipfs.File{Size: desc.Size, Layout: ipfs.LayoutBlob}
	if desc.Size < 0 {
		return cid.Undef, fmt.Errorf("%w: its size is negative", ErrCorrupt)
	}
	var batch []ipfs.Block
	bytes := 0
	put := func(b ipfs.Block) error {
		batch = append(batch, b)
		if bytes += len(b.Data); bytes < chunkBatch {
			return nil
		}
		err := c.node.Put(ctx, batch...)
		batch, bytes = nil, 0
		return err
	}
	var leaves []byte
	err := open(func(r io.Reader) error {
		for i := range f.NumLeaves() {
			data := make([]byte, f.LeafLen(i))
			if _, err := io.ReadFull(r, data); err != nil {
				return err
			}
			b, err := ipfs.NewBlock(cid.Raw, data)
			if err != nil {
				return err
			}
			f.Cid = b.Cid
			hash := b.Cid.Hash()
			leaves = append(leaves, hash[len(hash)-digest.SHA256.Size():]...)
			if err := put(b); err != nil {
				return err
			}
		}
		_, err := io.Copy(io.Discard, r) // its digest is checked at its end
		return err
	})
	if err == nil && f.NumLeaves() > 1 {
		f.Leaves = string(leaves)
		f.Cid, err = f.Build(put)
	}
	if err == nil && len(batch) > 0 {
		err = c.node.Put(ctx, batch...)
	}
	if err == nil {
		err = c.node.Pin(ctx, ipfs.Pin{Root: f.Cid, Name: chunkedPin(desc.Digest)})
	}
	return f.Cid, err
}

// manifest copies the config, and returns the manifest that says the roots.
func (c *chunker) manifest(ctx context.Context, im *image) (document, error) {
	config, err := c.blob(ctx, im.configDesc, func(read func(io.Reader) error) error { return read(bytes.NewReader(im.configData)) })
	if err == nil && c.namer != nil {
		err = c.name(ctx, im.configDesc, config)
	} else if err == nil {
		err = c.dst.Push(ctx, bare(im.configDesc), im.configData)
	}
	if err != nil {
		return document{}, fmt.Errorf("config: %w", err)
	}
	data, err := c.annotate(im, config)
	if err != nil {
		return document{}, err
	}
	doc, err := asDocument(im.desc.MediaType, data)
	if err != nil {
		return document{}, err
	}
	doc.desc.Platform, doc.desc.Annotations = &im.platform, im.desc.Annotations
	return doc, nil
}

// annotate returns the manifest with the roots. Fields that nobody here knows keep their values.
func (c *chunker) annotate(im *image, config cid.Cid) ([]byte, error) {
	type object = map[string]json.RawMessage
	var manifest, configDesc object
	var layers []object
	err := json.Unmarshal(im.data, &manifest)
	if err == nil {
		err = errors.Join(json.Unmarshal(manifest["config"], &configDesc), json.Unmarshal(manifest["layers"], &layers))
	}
	if err == nil && len(layers) != len(im.layers) {
		err = errors.New("it has two lists of layers")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	err = c.setRoot(configDesc, im.configDesc.Annotations, config.String())
	for i, l := range im.layers {
		err = errors.Join(err, c.setRoot(layers[i], l.desc.Annotations, c.blobs[l.desc.Digest].Cid))
	}
	if err != nil {
		return nil, err
	}
	if manifest["config"], err = marshal(configDesc); err != nil {
		return nil, err
	}
	if manifest["layers"], err = marshal(layers); err != nil {
		return nil, err
	}
	return marshal(manifest)
}

// setRoot writes the root of a blob into its descriptor.
func (c *chunker) setRoot(desc map[string]json.RawMessage, annotations map[string]string, root string) error {
	if c.namer == nil {
		return setAnnotation(desc, annotations, root)
	}
	d, err := digestOfRoot(root)
	if err == nil {
		desc["digest"], err = marshal(d)
	}
	return err
}

// setAnnotation adds the root of a blob to its descriptor.
func setAnnotation(desc map[string]json.RawMessage, annotations map[string]string, root string) error {
	annotations = maps.Clone(annotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[mediatype.AnnotationBlob] = root
	var err error
	desc["annotations"], err = marshal(annotations)
	return err
}

func (c *chunker) report(im *image, manifest digest.Digest) ManifestReport {
	out := newManifestReport(im, manifest)
	for _, l := range im.layers {
		report := *c.blobs[l.desc.Digest]
		report.DiffID = l.diffID
		out.Layers = append(out.Layers, report)
	}
	return out
}
