package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

var (
	_ Source = (*ipfsSource)(nil)
	_ Target = (*ipfsTarget)(nil)
)

// useNode tells source and target which node the conversion uses: those that are on IPFS are there.
func (o *Options) useNode() {
	for _, end := range []any{o.Source, o.Target} {
		if e, ok := end.(interface{ use(Node) }); ok {
			e.use(o.Node)
		}
	}
}

// An ipfsSource is an image on the node, or its peers.
type ipfsSource struct {
	root  cid.Cid
	node  Node
	image *imagedir.Image // from Resolve on
}

func parseIPFSSource(ref string) (*ipfsSource, error) {
	root, err := imagedir.ParseRoot(strings.TrimPrefix(ref, prefixIPFS))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; want ipfs:CID, as \"convert … ipfs:\" prints it", ErrReference, ref, err)
	}
	return &ipfsSource{root: root}, nil
}

func (s *ipfsSource) use(n Node)                  { s.node = n }
func (s *ipfsSource) String() string              { return prefixIPFS + s.root.String() }
func (s *ipfsSource) Close(context.Context) error { return nil }

// Resolve implements Source.
func (s *ipfsSource) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	im, err := imagedir.Open(ctx, s.node, s.root)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := im.Tag(imagedir.DefaultTag)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", errNoImage, err)
	}
	m, err := im.Manifest(ctx, d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	s.image = im
	return ocispec.Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(m.Data))}, nil
}

// Fetch implements Source.
func (s *ipfsSource) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	data, err := s.image.Blob(ctx, desc.Digest)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// An ipfsTarget makes an image on the node, which needs no registry. What the image is called is
// its CID, which nobody knows before it is tagged.
type ipfsTarget struct {
	node Node
	root cid.Cid // once it is tagged

	mu       sync.Mutex
	contents imagedir.Contents
	records  map[cid.Cid]struct{} // image records
}

func parseIPFSTarget(ref string) (*ipfsTarget, error) {
	if ref != prefixIPFS {
		return nil, fmt.Errorf("%w: %s: as a target it is ipfs: and nothing more: the CID is known, and printed, when the image is made", ErrReference, ref)
	}
	return &ipfsTarget{
		contents: imagedir.Contents{Blobs: map[digest.Digest]int64{}, Hints: map[cid.Cid]int64{}},
		records:  map[cid.Cid]struct{}{},
	}, nil
}

func (t *ipfsTarget) use(n Node) { t.node = n }

func (t *ipfsTarget) String() string {
	if t.root.Defined() {
		return prefixIPFS + t.root.String()
	}
	return prefixIPFS
}

// Prepare implements Target: whether the node can be written is found out by the first layer.
func (t *ipfsTarget) Prepare(context.Context) error { return nil }

// Close implements Target.
func (t *ipfsTarget) Close(context.Context) error { return nil }

// Origin implements Target.
func (t *ipfsTarget) Origin() string { return "" }

// Push implements Target.
func (t *ipfsTarget) Push(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	if len(data) > imagedir.MaxBlob {
		return fmt.Errorf("%s has %d bytes, more than the %d of a block of IPFS: write the image to a registry, or to an OCI layout", desc.Digest, len(data), imagedir.MaxBlob)
	}
	b, err := ipfs.NewBlock(cid.Raw, data)
	if err != nil {
		return err
	}
	if err := t.node.Put(ctx, b); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.contents.Blobs
	if _, ok := known[desc.Digest]; !ok && desc.MediaType == mediatype.Layer {
		root, err := mediatype.RootCid(desc.Digest)
		if err != nil {
			return err
		}
		t.contents.Layers = append(t.contents.Layers, ipfs.Block{Cid: root, Data: data})
	}
	known[desc.Digest] = int64(len(data))
	if desc.MediaType == ocispec.MediaTypeImageManifest {
		return t.noteRecords(data)
	}
	return nil
}

// noteRecords notes the image records that a manifest names.
func (t *ipfsTarget) noteRecords(manifest []byte) error {
	var m ocispec.Manifest // one that we made
	if err := json.Unmarshal(manifest, &m); err != nil {
		return err
	}
	for _, l := range m.Layers {
		if record := l.Annotations[mediatype.AnnotationImage]; record != "" {
			c, err := cid.Decode(record)
			if err != nil {
				return err
			}
			t.records[c] = struct{}{}
		}
	}
	return nil
}

// PushStream implements Target.
func (t *ipfsTarget) PushStream(context.Context, string, func(io.Writer) error) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{}, fmt.Errorf("an ordinary layer %w to ipfs: with --mediatype unixfs its files are put there", errors.ErrUnsupported)
}

// Tag implements Target: it makes the directory of the image, and pins it.
func (t *ipfsTarget) Tag(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	if err := t.Push(ctx, desc, data); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for record := range t.records {
		if err := t.addHints(ctx, record); err != nil {
			return fmt.Errorf("image record %s: %w", record, err)
		}
	}
	t.contents.Top = desc
	root, err := imagedir.Write(ctx, t.node, t.contents)
	if err != nil {
		return err
	}
	if err := t.node.Pin(ctx, ipfs.Pin{Root: root, Name: "ipcs:directory:" + desc.Digest.String()}); err != nil {
		return fmt.Errorf("pin %s: %w", root, err)
	}
	t.root = root
	return nil
}

// addHints adds an image record, and the profile that it names.
func (t *ipfsTarget) addHints(ctx context.Context, record cid.Cid) error {
	data, err := t.node.Get(ctx, record)
	if err != nil {
		return err
	}
	t.contents.Hints[record] = int64(len(data))
	m, err := layer.DecodeImage(data)
	if err != nil || m.Profile == "" {
		return err
	}
	profile, err := cid.Decode(m.Profile)
	if err != nil {
		return err
	}
	if data, err = t.node.Get(ctx, profile); err != nil {
		return err
	}
	t.contents.Hints[profile] = int64(len(data))
	return nil
}
