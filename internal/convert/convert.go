// Package convert rewrites an OCI or Docker image as an ipcs image, gives the original
// back, and proves that an ipcs image is what it was made from.
//
// # Algorithm
//
//  1. The source is resolved, and the manifests of the wanted platforms are read with
//     their configs. Everything that can be refused without reading a layer is refused
//     here.
//  2. Each distinct layer is read once: its blob is checked against the digest in the
//     manifest while it is decompressed, and what comes out against the diffID in the
//     config while layer.Write makes a layer of it. The layer root is pinned under a
//     name of both digests, so that the next conversion on this node finds it and does
//     not read the blob at all. The root block is pushed as a blob.
//  3. For each image an image record is put on the node, and the config and manifest
//     are rewritten and pushed. The tag comes last: whatever fails, the target's tag
//     stays what it was.
//
// Restore goes the other way: the tar of each ipcs layer is rebuilt and must have the
// diffID of the original, whose config and manifest travel in annotations of the converted
// one. Verify rebuilds the tars as well, and keeps nothing.
//
// # Concurrency
//
// Image converts up to Options.Workers layers at the same time, each a pipeline of its
// own, and does the rest in the goroutine of its caller. It returns after all that it
// started has ended; Restore and Verify likewise. Nothing is held in memory but manifests,
// configs and what layer.Write keeps of each layer under way.
package convert

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Source is one image, where it is read from. Fetch does not verify what it returns.
type Source interface {
	// Resolve returns the descriptor of the image's manifest or index. Its media type
	// is empty when the source does not record one.
	Resolve(ctx context.Context) (ocispec.Descriptor, error)
	Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
	fmt.Stringer // the reference, for messages
	Close(ctx context.Context) error
}

// A Target is one reference, where an image is written to.
type Target interface {
	// Prepare fails if the target could not be written, as far as that can be told
	// without writing: a conversion may take long.
	Prepare(ctx context.Context) error
	// Push stores content under its digest. Pushing what is there is no error.
	Push(ctx context.Context, desc ocispec.Descriptor, data []byte) error
	// PushStream stores what write writes, and returns its digest and size under the
	// media type. If write fails, nothing is stored, and the error is that of write.
	PushStream(ctx context.Context, mediaType string, write func(w io.Writer) error) (ocispec.Descriptor, error)
	// Tag stores a manifest or index and makes the reference point to it. All that it
	// refers to was pushed before.
	Tag(ctx context.Context, desc ocispec.Descriptor, data []byte) error
	// Origin is the repository, as HOST/NAME, where what was pushed can be read by its digest; empty
	// if it is none of a registry.
	Origin() string
	fmt.Stringer // the reference, for messages
	Close(ctx context.Context) error
}

// A Node is what Image needs of an ipfs.Node.
type Node interface {
	layer.Source
	ipfs.Putter
	ipfs.Pinner
	ipfs.Local
}

// Options say what to convert, and how.
type Options struct {
	Source Source
	Target Target
	Node   Node
	// Platforms are those wanted of an index: each must be there. Empty means this
	// host's, or what there is if the source is a single manifest; and all to Verify.
	Platforms    []ocispec.Platform
	AllPlatforms bool
	Peers        []string // multiaddrs to put into the image record
	Profile      []byte   // encoded profile to put into the image record; nil for none
	Fill         string   // whether all files should be fetched when a container runs: "true", "false" or nothing
	Seeds        bool     // write seeds beside the image (spec/seed.md); Image only
	Since        Source   // image whose seeds are kept for this one, in place of writing what they have again; nil for none
	WithOriginal bool     // copy the original to the target, too, under the same tag; Image only
	RootDigests  bool     // digests are those of roots; Chunked only
	KeepDiffIDs  bool     // leave the config as it is; Image only
	Compression  string   // of the layers that Restore writes: None, Gzip or Zstd
	Workers      int      // layers converted at the same time; 0 means one for each core
	MaxTar       int64    // bytes of a tar that Restore and Verify rebuild; 0 means 1 TiB
	Progress     Progress // nil means none
}

// A Report says what was made. Its JSON form is what convert --json prints.
type Report struct {
	Source    string           `json:"source"`
	Target    string           `json:"target"`
	Digest    digest.Digest    `json:"digest"`        // of the manifest or index that is tagged
	Cid       string           `json:"cid,omitempty"` // of the image, if the target is on IPFS
	Manifests []ManifestReport `json:"manifests"`
	Seconds   float64          `json:"seconds"`
}

// A ManifestReport is one converted manifest.
type ManifestReport struct {
	Platform string        `json:"platform"`
	Source   digest.Digest `json:"source"`
	Digest   digest.Digest `json:"digest"`
	Original digest.Digest `json:"original,omitempty"` // of Restore: the manifest whose config this one has
	Layers   []LayerReport `json:"layers"`             // bottom first
}

// A LayerReport is one converted layer.
type LayerReport struct {
	Source digest.Digest `json:"source"`
	DiffID digest.Digest `json:"diffID"` // of the source
	Digest digest.Digest `json:"digest"`
	Cid    string        `json:"cid"`
	Bytes  int64         `json:"bytes"` // of the tar; 0 if reused
	Files  int           `json:"files"` // regular files
	Reused bool          `json:"reused"`

	Seed      digest.Digest `json:"seed,omitempty"`      // of the seed, if one was written
	SeedBytes int64         `json:"seedBytes,omitempty"` // its size
}

// Image converts an image.
func Image(ctx context.Context, opts Options) (*Report, error) {
	start := time.Now()
	w, ims, err := opts.begin(ctx, checkTar, false)
	if err != nil {
		return nil, err
	}
	c := &converter{
		src: opts.Source, dst: opts.Target, node: opts.Node,
		progress: opts.Progress, workers: opts.Workers, large: newTurn(),
	}
	layers, err := c.layers(ctx, ims)
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", opts.Source, err)
	}
	p := &publisher{
		src: opts.Source, dst: opts.Target, node: opts.Node, peers: opts.Peers, layers: layers, original: opts.WithOriginal,
		profile: opts.Profile, fill: opts.Fill, keep: opts.KeepDiffIDs, seeds: opts.Seeds, since: opts.Since, annotations: w.annotations, progress: opts.Progress,
	}
	report, err := p.publish(ctx, ims)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", opts.Target, err)
	}
	opts.finish(report, start)
	return report, nil
}

func (o *Options) setDefaults() {
	o.useNode()
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.MaxTar == 0 {
		// A few bytes can make a tar as long as they like.
		o.MaxTar = 1 << 40
	}
	if o.Progress == nil {
		o.Progress = noProgress{}
	}
}

// begin reads the manifests that are wanted, and prepares the target.
func (o *Options) begin(ctx context.Context, check layerCheck, lazy bool) (*walk, []*image, error) {
	o.setDefaults()
	w, ims, err := o.load(ctx, check, lazy)
	if err != nil {
		return nil, nil, err
	}
	if err := o.Target.Prepare(ctx); err != nil {
		return nil, nil, fmt.Errorf("write %s: %w", o.Target, err)
	}
	return w, ims, nil
}

// load reads the manifests that are wanted: lazy says those of ipcs images.
func (o *Options) load(ctx context.Context, check layerCheck, lazy bool) (*walk, []*image, error) {
	w := &walk{src: o.Source, platforms: o.Platforms, all: o.AllPlatforms, check: check, lazy: lazy, progress: o.Progress}
	ims, err := w.load(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", o.Source, err)
	}
	return w, ims, nil
}

func (o *Options) finish(report *Report, start time.Time) {
	report.Source, report.Target = o.Source.String(), o.Target.String()
	if t, ok := o.Target.(*ipfsTarget); ok {
		report.Cid = t.root.String()
	}
	report.Seconds = time.Since(start).Seconds()
}
