package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

// Limits of an index.
const (
	maxIndexDepth = 4    // of indexes within indexes
	maxManifests  = 512  // of all of them together
	maxInIndex    = 4096 // of one, with all that is no image
)

// ErrPlatform says that a source has no image for a platform that was asked for.
var ErrPlatform = errors.New("no image for this platform")

// A walk reads the manifests of a source that the user wants.
type walk struct {
	src       Source
	platforms []ocispec.Platform
	all       bool
	check     layerCheck
	progress  Progress
	manifests []ocispec.Descriptor // found in indexes so far, in their order
	leftOut   []ocispec.Descriptor // what is no image by its descriptor, but others could run
	lazy      bool                 // ipcs images are wanted, and not what they were made of
	originals []ocispec.Descriptor // that stand beside ipcs images, which are wanted

	annotations map[string]string // of the outermost index
}

// load returns the wanted images, in the order of the index, or of --platform.
func (w *walk) load(ctx context.Context) ([]*image, error) {
	desc, err := w.src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	// The digest of a schema 1 manifest is not that of its bytes, so do not even try.
	if isSchema1(desc.MediaType) {
		return nil, errSchema1
	}
	data, err := fetchVerified(ctx, w.src, desc, "manifest", maxManifest)
	if err != nil {
		return nil, err
	}
	kind, err := kindOf(&desc, data)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	if kind == kindManifest {
		return w.single(ctx, desc, data)
	}
	if err := w.index(ctx, desc, data, 1); err != nil {
		return nil, err
	}
	return w.choose(ctx)
}

// single checks that the only manifest there is is the one that was asked for.
func (w *walk) single(ctx context.Context, desc ocispec.Descriptor, data []byte) ([]*image, error) {
	im, err := loadImage(ctx, w.src, desc, data, w.check)
	if err != nil {
		return nil, err
	}
	for _, p := range w.platforms {
		if !platforms.Only(p).Match(im.platform) {
			return nil, fmt.Errorf("%w: %s was asked for, and the image is one for %s",
				ErrPlatform, platforms.FormatAll(p), platforms.FormatAll(im.platform))
		}
	}
	return []*image{im}, nil
}

// index collects the manifests of an index and the indexes in it.
func (w *walk) index(ctx context.Context, desc ocispec.Descriptor, data []byte, depth int) error {
	var index struct {
		Manifests   json.RawMessage   `json:"manifests"`
		Annotations map[string]string `json:"annotations"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("index %s: %w: %w", desc.Digest, ErrCorrupt, err)
	}
	if depth == 1 {
		w.annotations = index.Annotations
	}
	manifests, err := decodeList[ocispec.Descriptor](index.Manifests, maxInIndex)
	if err != nil {
		return fmt.Errorf("index %s: its manifests: %w", desc.Digest, err)
	}
	for _, m := range manifests {
		switch {
		case m.ArtifactType == mediatype.Seeds && isUnknown(m.Platform): // of an image that is in the index, too
		case isAttestation(m):
			w.leaveOut(m, "attestation manifest %.80q is left out: it describes the image as it was", m.Digest)
		case m.ArtifactType != "":
			w.leaveOut(m, "manifest %.80q is left out: it is a %.200q and no container image", m.Digest, m.ArtifactType)
		case images.IsIndexType(m.MediaType):
			if err := w.nested(ctx, m, depth); err != nil {
				return err
			}
		default:
			if len(w.manifests) == maxManifests {
				return fmt.Errorf("index %s: %w: it has more than the %d manifests allowed", desc.Digest, ErrUnsupported, maxManifests)
			}
			w.manifests = append(w.manifests, m)
		}
	}
	return nil
}

func (w *walk) nested(ctx context.Context, desc ocispec.Descriptor, depth int) error {
	if depth == maxIndexDepth {
		return fmt.Errorf("index %s: %w: more than %d indexes within each other", desc.Digest, ErrUnsupported, maxIndexDepth)
	}
	data, err := fetchVerified(ctx, w.src, desc, "index", maxManifest)
	if err != nil {
		return err
	}
	if _, err := kindOf(&desc, data); err != nil {
		return fmt.Errorf("index %s: %w", desc.Digest, err)
	}
	return w.index(ctx, desc, data, depth+1)
}

// leaveOut says that a manifest is left out. What runs images goes by the platform alone,
// and finds none that it knows on what buildkit makes.
func (w *walk) leaveOut(desc ocispec.Descriptor, format string, args ...any) {
	w.progress.Note(fmt.Sprintf(format, args...))
	if !isUnknown(desc.Platform) {
		w.leftOut = append(w.leftOut, desc)
	}
}

func isUnknown(p *ocispec.Platform) bool {
	return p != nil && p.OS == "unknown" && p.Architecture == "unknown"
}

// isAttestation recognises what buildkit puts beside images to say how they were made.
func isAttestation(desc ocispec.Descriptor) bool {
	return desc.Annotations["vnd.docker.reference.type"] == "attestation-manifest" || isUnknown(desc.Platform)
}

// choose loads those of the manifests found that are wanted.
func (w *walk) choose(ctx context.Context) ([]*image, error) {
	w.pick()
	if len(w.manifests) == 0 {
		return nil, fmt.Errorf("%w: the index holds no container image", ErrUnsupported)
	}
	chosen := w.manifests
	if !w.all {
		var err error
		if chosen, err = w.match(ctx); err != nil {
			return nil, err
		}
	}
	var out []*image
	held := 0
	for _, desc := range chosen {
		im, err := w.fetchImage(ctx, desc)
		if err != nil {
			return nil, err
		}
		if held += im.size(); held > maxDocuments {
			return nil, errDocuments
		}
		out = append(out, im)
	}
	return out, nil
}

var errDocuments = fmt.Errorf("%w: its manifests and configs have more than the %d MiB allowed; choose some with --platform", ErrUnsupported, maxDocuments>>20)

// match returns the best manifest for each platform, each manifest once.
func (w *walk) match(ctx context.Context) ([]ocispec.Descriptor, error) {
	wanted := w.platforms
	if len(wanted) == 0 {
		wanted = []ocispec.Platform{hostPlatform()}
	}
	if err := w.fillPlatforms(ctx); err != nil {
		return nil, err
	}
	var out []ocispec.Descriptor
	for _, p := range wanted {
		if w.lazy {
			p = withFeature(p)
		}
		best := w.best(platforms.Only(p))
		if best == nil {
			return nil, fmt.Errorf("%w: %s; the index has %s", ErrPlatform, platforms.FormatAll(p), w.available())
		}
		if !slices.ContainsFunc(out, func(d ocispec.Descriptor) bool { return d.Digest == best.Digest }) {
			out = append(out, *best)
		}
	}
	return out, nil
}

func (w *walk) best(m platforms.MatchComparer) *ocispec.Descriptor {
	var best *ocispec.Descriptor
	for i, d := range w.manifests {
		if m.Match(*d.Platform) && (best == nil || m.Less(*d.Platform, *best.Platform)) {
			best = &w.manifests[i]
		}
	}
	return best
}

// fillPlatforms takes the platform of a manifest from its config where the index does
// not tell it.
func (w *walk) fillPlatforms(ctx context.Context) error {
	for i, d := range w.manifests {
		if d.Platform != nil {
			continue
		}
		im, err := w.fetchImage(ctx, d)
		if err != nil {
			return err
		}
		w.manifests[i].Platform = &im.platform
	}
	return nil
}

func (w *walk) fetchImage(ctx context.Context, desc ocispec.Descriptor) (*image, error) {
	data, err := fetchVerified(ctx, w.src, desc, "manifest", maxManifest)
	if err != nil {
		return nil, err
	}
	if kind, err := kindOf(&desc, data); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	} else if kind != kindManifest {
		return nil, fmt.Errorf("manifest %s: %w: it is an index, and its descriptor does not say so", desc.Digest, ErrCorrupt)
	}
	im, err := loadImage(ctx, w.src, desc, data, w.check)
	if err != nil {
		return nil, err
	}
	if desc.Platform != nil {
		im.platform = *desc.Platform
	}
	return im, nil
}

func (w *walk) available() string {
	var names []string
	for _, d := range w.manifests {
		names = append(names, platforms.FormatAll(*d.Platform))
	}
	return strings.Join(names, ", ")
}

// hostPlatform is what containers of this host run as: Linux, also where the host is
// another system.
func hostPlatform() ocispec.Platform {
	p := platforms.DefaultSpec()
	p.OS, p.OSVersion, p.OSFeatures = "linux", "", nil
	return p
}

var errSchema1 = fmt.Errorf("%w: it is a Docker schema 1 manifest; pull and push the image with a current tool first", ErrUnsupported)

// Kinds of what a reference can point to.
const (
	kindManifest = iota
	kindIndex
)

// kindOf tells what data is. The media type of its descriptor may be missing, and is
// then set; but one that contradicts the data is refused, since what is a manifest to
// one reader and an index to another can hide one image behind another.
func kindOf(desc *ocispec.Descriptor, data []byte) (int, error) {
	var doc struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	isIndex, isManifest := doc.Manifests != nil, doc.Config != nil || doc.Layers != nil
	switch {
	case doc.SchemaVersion == 1 || doc.FSLayers != nil || isSchema1(desc.MediaType):
		return 0, errSchema1
	case isIndex == isManifest:
		return 0, fmt.Errorf("%w: it must be either a manifest or an index", ErrUnsupported)
	case desc.MediaType != "" && doc.MediaType != "" && desc.MediaType != doc.MediaType:
		return 0, fmt.Errorf("%w: its descriptor says it is a %.200q, itself that it is a %.200q", ErrCorrupt, desc.MediaType, doc.MediaType)
	}
	if desc.MediaType == "" {
		desc.MediaType = doc.MediaType
	}
	kind, want := kindManifest, ocispec.MediaTypeImageManifest
	if isIndex {
		kind, want = kindIndex, ocispec.MediaTypeImageIndex
	}
	switch {
	case desc.MediaType == "":
		desc.MediaType = want
	case isIndex != images.IsIndexType(desc.MediaType) || isManifest != images.IsManifestType(desc.MediaType):
		return 0, fmt.Errorf("%w: what it holds is not what its media type %.200q says", ErrUnsupported, desc.MediaType)
	}
	return kind, nil
}

func isSchema1(mt string) bool {
	return strings.HasPrefix(mt, "application/vnd.docker.distribution.manifest.v1+")
}

// ParsePlatforms parses platforms such as linux/arm64/v8.
func ParsePlatforms(specs []string) ([]ocispec.Platform, error) {
	var out []ocispec.Platform
	for _, s := range specs {
		p, err := platforms.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("platform %q: %w", s, err)
		}
		out = append(out, p)
	}
	return out, nil
}
