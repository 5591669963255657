package convert

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/platforms"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A publisher writes the new image, once all its layers are on the node and in the target.
type publisher struct {
	src     Source
	dst     Target
	node    Node
	peers   []string
	profile []byte
	fill    string
	layers  map[layerKey]*converted
	keep    bool   // the config as it is
	seeds   bool   // write seeds
	since   Source // image whose seeds need not be written again; nil: none

	original    bool // copy what was converted as well
	progress    Progress
	annotations map[string]string // of the source's index
}

// A document is a manifest or index with its descriptor.
type document struct {
	desc ocispec.Descriptor
	data []byte
}

// publish pushes everything, and tags it last.
func (p *publisher) publish(ctx context.Context, ims []*image) (*Report, error) {
	report := &Report{}
	var manifests []document
	for _, im := range ims {
		seeds, err := p.pushSeeds(ctx, im)
		if err != nil {
			return nil, err
		}
		m, hints, err := p.manifest(ctx, im, seeds)
		if err != nil {
			return nil, err
		}
		if p.original {
			before, err := p.pushOriginal(ctx, im)
			if err != nil {
				return nil, err
			}
			manifests = append(manifests, before) // first: older tools take the first that fits
			lazy := withFeature(im.platform)
			m.desc.Platform = &lazy
		}
		manifests = append(manifests, m)
		report.Manifests = append(report.Manifests, p.report(im, m.desc.Digest, seeds))
		if p.seeds {
			if m, err = p.seedsManifest(ctx, im, m, hints, seeds); err != nil {
				return nil, fmt.Errorf("manifest of seeds: %w", err)
			}
			manifests = append(manifests, m)
		}
	}
	var err error
	report.Digest, err = tag(ctx, p.dst, manifests, p.annotations)
	return report, err
}

// tag points the target to the manifest, or to an index of several.
func tag(ctx context.Context, dst Target, manifests []document, annotations map[string]string) (digest.Digest, error) {
	top := manifests[0]
	if len(manifests) > 1 {
		for _, m := range manifests {
			if err := dst.Push(ctx, m.desc, m.data); err != nil {
				return "", fmt.Errorf("push manifest %s: %w", m.desc.Digest, err)
			}
		}
		var err error
		if top, err = newIndex(manifests, annotations); err != nil {
			return "", err
		}
	}
	// These tell the manifests of an index apart; a tag points to a bare descriptor.
	top.desc.Platform, top.desc.Annotations = nil, nil
	if err := dst.Tag(ctx, top.desc, top.data); err != nil {
		return "", fmt.Errorf("tag %s: %w", top.desc.Digest, err)
	}
	return top.desc.Digest, nil
}

// manifest puts the image record on the node, pushes the config, and returns the manifest, and the blobs
// of image record and profile.
func (p *publisher) manifest(ctx context.Context, im *image, seeds imageSeeds) (doc document, hints []ocispec.Descriptor, err error) {
	blocks, err := p.putRecord(ctx, im, seeds)
	if err != nil {
		return doc, nil, fmt.Errorf("image record: %w", err)
	}
	config, err := p.pushConfig(ctx, im)
	if err != nil {
		return doc, nil, fmt.Errorf("config: %w", err)
	}
	if doc, err = p.document(im, config, blocks[0].block.Cid); err != nil {
		return doc, nil, err
	}
	// The layers have pins of their own, which stay for other images.
	for _, b := range blocks {
		pin := ipfs.Pin{Root: b.block.Cid, Name: "ipcs:" + b.what + ":" + doc.desc.Digest.String()}
		if err := p.node.Pin(ctx, pin); err != nil {
			return doc, nil, fmt.Errorf("pin %s %s: %w", b.what, b.block.Cid, err)
		}
		if p.seeds {
			desc := ocispec.Descriptor{MediaType: b.mediaType, Digest: digest.FromBytes(b.block.Data), Size: int64(len(b.block.Data))}
			if err := p.dst.Push(ctx, desc, b.block.Data); err != nil {
				return doc, nil, fmt.Errorf("%s: %w", b.what, err)
			}
			hints = append(hints, desc)
		}
	}
	return doc, hints, nil
}

// document makes the manifest.
func (p *publisher) document(im *image, config ocispec.Descriptor, record cid.Cid) (document, error) {
	manifest := ocispec.Manifest{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageManifest,
		Config:      config,
		Layers:      []ocispec.Descriptor{},
		Annotations: maps.Clone(im.annotations),
	}
	for _, l := range im.layers {
		manifest.Layers = append(manifest.Layers, p.descriptor(l, record))
	}
	if manifest.Annotations == nil {
		manifest.Annotations = map[string]string{}
	}
	if err := im.annotateOriginal(manifest.Annotations, p.keep); err != nil {
		return document{}, fmt.Errorf("original: %w", err)
	}
	doc, err := newDocument(manifest.MediaType, manifest)
	if errors.Is(err, errManifestSize) {
		// The way back then makes a config and a manifest that say the same.
		p.progress.Note(fmt.Sprintf("manifest %s: the original is too large to travel with the image, which can so not be verified; the way back gives another config digest", im.desc.Digest))
		delete(manifest.Annotations, mediatype.AnnotationManifestData)
		delete(manifest.Annotations, mediatype.AnnotationConfigData)
		doc, err = newDocument(manifest.MediaType, manifest)
	}
	if err != nil {
		return document{}, err
	}
	doc.desc.Platform, doc.desc.Annotations = &im.platform, im.desc.Annotations
	return doc, nil
}

// A hint is a block beside the layers.
type hint struct {
	what, mediaType string
	block           ipfs.Block
}

// putRecord puts the image record, which lists the layers and where to get them, and the
// profile behind it, if there is one.
func (p *publisher) putRecord(ctx context.Context, im *image, seeds imageSeeds) ([]hint, error) {
	m := &layer.Image{Peers: p.peers, Seeds: seeds.since}
	if p.seeds {
		m.Origin = p.dst.Origin()
	}
	for _, l := range im.layers {
		c := p.layers[l.key()]
		m.Layers = append(m.Layers, layer.ImageLayer{Digest: c.digest, Block: c.root.Data, Seed: seeds.of[l.key()]})
	}
	var hints []hint
	if p.profile != nil {
		profile, err := p.putRaw(ctx, p.profile)
		if err != nil {
			return nil, fmt.Errorf("profile: %w", err)
		}
		m.Profile = profile.Cid.String()
		hints = append(hints, hint{"profile", mediatype.Profile, profile})
	}
	data, err := layer.EncodeImage(m)
	if err != nil {
		return nil, err
	}
	record, err := p.putRaw(ctx, data)
	return append([]hint{{"image", mediatype.Record, record}}, hints...), err
}

// putRaw puts a raw block.
func (p *publisher) putRaw(ctx context.Context, data []byte) (ipfs.Block, error) {
	block, err := ipfs.NewBlock(cid.Raw, data)
	if err != nil {
		return block, err
	}
	return block, p.node.Put(ctx, block)
}

func (p *publisher) pushConfig(ctx context.Context, im *image) (ocispec.Descriptor, error) {
	if p.keep {
		desc := bare(im.configDesc)
		return desc, p.dst.Push(ctx, desc, im.configData)
	}
	diffIDs := []digest.Digest{}
	for _, l := range im.layers {
		diffIDs = append(diffIDs, p.layers[l.key()].digest)
	}
	data, err := rewriteConfig(im.config, diffIDs)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageConfig,
		Digest:    digest.FromBytes(data),
		Size:      int64(len(data)),
	}
	return desc, p.dst.Push(ctx, desc, data)
}

// descriptor returns the descriptor of a converted layer.
func (p *publisher) descriptor(l sourceLayer, record cid.Cid) ocispec.Descriptor {
	c := p.layers[l.key()]
	annotations := layerAnnotations(l.desc)
	annotations[mediatype.AnnotationRoot] = c.root.Cid.String()
	annotations[mediatype.AnnotationImage] = record.String()
	annotations[mediatype.AnnotationDiffID] = l.diffID.String()
	if l.desc.Digest.Algorithm() == digest.SHA256 {
		annotations[mediatype.AnnotationSource] = l.desc.Digest.String()
	}
	if peers := peersAnnotation(p.peers); peers != "" {
		annotations[mediatype.AnnotationPeers] = peers
	}
	if origin := p.dst.Origin(); p.seeds && origin != "" {
		annotations[mediatype.AnnotationOrigin] = origin
	}
	if p.fill != "" {
		annotations[mediatype.AnnotationFill] = p.fill
	}
	if p.keep {
		annotations[mediatype.AnnotationKeep] = "true"
	}
	return ocispec.Descriptor{
		MediaType:   mediatype.Layer,
		Digest:      c.digest,
		Size:        int64(len(c.root.Data)),
		Annotations: annotations,
	}
}

// layerAnnotations are the annotations of a layer that hold whatever blob it is.
func layerAnnotations(desc ocispec.Descriptor) map[string]string {
	out := map[string]string{}
	for key, value := range desc.Annotations {
		if !describesBlob(key) {
			out[key] = value
		}
	}
	return out
}

// describesBlob reports whether an annotation speaks to a snapshotter or of the bytes of
// the blob that was converted: it would be wrong on what became of it.
func describesBlob(key string) bool {
	for _, prefix := range []string{
		"containerd.io/snapshot/", "com.github.hinshun.ipcs.",
		"io.containers.estargz.", "io.github.containers.zstd-chunked.",
	} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

var errManifestSize = errors.New("the new manifest is too large")

func newIndex(manifests []document, annotations map[string]string) (document, error) {
	index := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Annotations: annotations,
	}
	for _, m := range manifests {
		index.Manifests = append(index.Manifests, m.desc)
	}
	return newDocument(index.MediaType, index)
}

func newDocument(mt string, v any) (document, error) {
	data, err := marshal(v)
	if err != nil {
		return document{}, err
	}
	return asDocument(mt, data)
}

func asDocument(mt string, data []byte) (document, error) {
	if len(data) > maxManifest {
		return document{}, fmt.Errorf("%w: %d bytes, more than the %d that registries take", errManifestSize, len(data), maxManifest)
	}
	return document{
		desc: ocispec.Descriptor{MediaType: mt, Digest: digest.FromBytes(data), Size: int64(len(data))},
		data: data,
	}, nil
}

func (p *publisher) report(im *image, manifest digest.Digest, seeds imageSeeds) ManifestReport {
	out := newManifestReport(im, manifest)
	for _, l := range im.layers {
		report := p.layers[l.key()].report
		if s := seeds.of[l.key()]; s != nil {
			report.Seed, report.SeedBytes = s.Digest, s.Size
		}
		out.Layers = append(out.Layers, report)
	}
	return out
}

func newManifestReport(im *image, manifest digest.Digest) ManifestReport {
	return ManifestReport{
		Platform: platforms.FormatAll(im.platform),
		Source:   im.desc.Digest,
		Digest:   manifest,
		Layers:   []LayerReport{},
	}
}
