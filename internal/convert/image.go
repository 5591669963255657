package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/hinshun/ipcs/internal/jsonlist"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of what is read whole.
const (
	maxManifest = 4 << 20 // bytes of a manifest or index, the limit of most registries
	maxConfig   = 8 << 20 // bytes of a config
	// maxDocuments is how many bytes manifests and configs of all images have together.
	maxDocuments = 64 << 20
)

// ErrUnsupported says that the source is something that convert cannot convert.
var ErrUnsupported = errors.New("cannot be converted")

// An image is one manifest of the source, checked, with all that the new one is made of.
type image struct {
	desc        ocispec.Descriptor // of the manifest
	data        []byte             // the manifest
	platform    ocispec.Platform
	annotations map[string]string
	configDesc  ocispec.Descriptor
	configData  []byte
	config      map[string]json.RawMessage
	layers      []sourceLayer // bottom first
}

// size is how many bytes of documents it holds.
func (im *image) size() int { return len(im.data) + len(im.configData) }

// A sourceLayer is a layer of the source.
type sourceLayer struct {
	desc   ocispec.Descriptor
	diffID digest.Digest
}

// A layerCheck refuses layers that cannot be dealt with.
type layerCheck func(ocispec.Descriptor) error

// loadImage parses a manifest and reads its config.
func loadImage(ctx context.Context, src Source, desc ocispec.Descriptor, data []byte, check layerCheck) (*image, error) {
	im, err := readImage(ctx, src, desc, data, check)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", desc.Digest, err)
	}
	return im, nil
}

func readImage(ctx context.Context, src Source, desc ocispec.Descriptor, data []byte, check layerCheck) (*image, error) {
	manifest, err := parseManifest(data, check)
	if err != nil {
		return nil, err
	}
	config, err := fetchVerified(ctx, src, manifest.Config, "config", maxConfig)
	if err != nil {
		return nil, err
	}
	return newImage(desc, data, manifest, config)
}

func parseManifest(data []byte, check layerCheck) (*ocispec.Manifest, error) {
	var doc struct {
		ocispec.Manifest
		Layers json.RawMessage `json:"layers"` // instead of those of Manifest
	}
	var fields map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(data, &doc), json.Unmarshal(data, &fields)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := checkNames(fields, "mediaType", "config", "layers", "annotations"); err != nil {
		return nil, err
	}
	manifest := &doc.Manifest
	if err := checkConfigType(manifest); err != nil {
		return nil, err
	}
	layers, err := decodeList[ocispec.Descriptor](doc.Layers, layer.MaxImageLayers)
	if err != nil {
		return nil, fmt.Errorf("its layers: %w", err)
	}
	for i, l := range layers {
		if err := check(l); err != nil {
			return nil, fmt.Errorf("layer %d %.80q: %w", i+1, l.Digest, err)
		}
	}
	manifest.Layers = layers
	return manifest, nil
}

// decodeList decodes an array of at most so many elements.
func decodeList[T any](text json.RawMessage, most int) ([]T, error) {
	list, err := jsonlist.Decode[T](text, most)
	switch {
	case errors.Is(err, jsonlist.ErrTooMany):
		return nil, fmt.Errorf("%w: %w", ErrUnsupported, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return list, nil
}

// checkNames refuses names that differ from those in case only. Decoders that ignore case
// could take such a field for the one that we read, or write.
func checkNames(object map[string]json.RawMessage, names ...string) error {
	for key := range object {
		for _, name := range names {
			if key != name && strings.EqualFold(key, name) {
				return fmt.Errorf("%w: it has a field %q beside %q", ErrCorrupt, key, name)
			}
		}
	}
	return nil
}

// newImage puts a manifest and its config, both verified, together.
func newImage(desc ocispec.Descriptor, data []byte, manifest *ocispec.Manifest, config []byte) (*image, error) {
	im := &image{desc: desc, data: data, annotations: manifest.Annotations, configDesc: manifest.Config, configData: config}
	diffIDs, err := im.parseConfig(config)
	if err != nil {
		return nil, fmt.Errorf("config %s: %w", manifest.Config.Digest, err)
	}
	if len(diffIDs) != len(manifest.Layers) {
		return nil, fmt.Errorf("config %s: %w: it has %d diffIDs for the %d layers of the manifest",
			manifest.Config.Digest, ErrCorrupt, len(diffIDs), len(manifest.Layers))
	}
	for i, l := range manifest.Layers {
		im.layers = append(im.layers, sourceLayer{desc: l, diffID: diffIDs[i]})
	}
	return im, nil
}

// checkConfigType refuses manifests of what is no container image.
func checkConfigType(manifest *ocispec.Manifest) error {
	switch mt := manifest.Config.MediaType; mt {
	case ocispec.MediaTypeImageConfig, images.MediaTypeDockerSchema2Config:
		return nil
	case "":
		return fmt.Errorf("%w: its config has no media type", ErrUnsupported)
	default:
		return fmt.Errorf("%w: its config is a %.200q, so it is no container image", ErrUnsupported, mt)
	}
}

// checkTarOrIpcs refuses what is neither a layer that checkTar takes nor an ipcs layer.
func checkTarOrIpcs(desc ocispec.Descriptor) error {
	if desc.MediaType != mediatype.Layer {
		return checkTar(desc)
	}
	if _, err := mediatype.RootCid(desc.Digest); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return nil
}

// checkTar refuses what is no tar that can be had and read.
func checkTar(desc ocispec.Descriptor) error {
	mt := desc.MediaType
	switch {
	case desc.Size < 0:
		return fmt.Errorf("%w: its size is negative", ErrCorrupt)
	case desc.Digest.Validate() != nil:
		return fmt.Errorf("%w: its digest is malformed", ErrCorrupt)
	case mt == mediatype.Layer:
		return fmt.Errorf("%w: it is an ipcs layer already; convert the image it was made from, or make that with --mediatype tar first", ErrUnsupported)
	case mt == "":
		return fmt.Errorf("%w: it has no media type", ErrUnsupported)
	case strings.HasSuffix(mt, "+encrypted"):
		return fmt.Errorf("%w: it is encrypted (%.200q); decrypt the image first", ErrUnsupported, mt)
	case images.IsNonDistributable(mt):
		return fmt.Errorf("%w: it is a foreign layer (%.200q), which must not be distributed", ErrUnsupported, mt)
	}
	switch mt {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		images.MediaTypeDockerSchema2Layer, images.MediaTypeDockerSchema2LayerGzip, images.MediaTypeDockerSchema2LayerZstd:
		return nil
	}
	return fmt.Errorf("%w: its media type %.200q is none of a tar", ErrUnsupported, mt)
}

// parseConfig keeps the config with all its fields, and returns its diffIDs.
func (im *image) parseConfig(data []byte) ([]digest.Digest, error) {
	if err := json.Unmarshal(data, &im.config); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err := checkNames(im.config, keyRootFS); err != nil {
		return nil, err
	}
	// Not ocispec.Image: what it holds besides can be much, and nobody needs it.
	var config struct {
		ocispec.Platform
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	// Of two fields of the name, decoders put together what we take the last of.
	var last ocispec.RootFS
	if raw, ok := im.config[keyRootFS]; ok {
		if err := json.Unmarshal(raw, &last); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	if last.Type != config.RootFS.Type || !slices.Equal(last.DiffIDs, config.RootFS.DiffIDs) {
		return nil, fmt.Errorf("%w: it has two fields %q, which differ", ErrCorrupt, keyRootFS)
	}
	if config.RootFS.Type != "" && config.RootFS.Type != "layers" {
		return nil, fmt.Errorf("%w: its rootfs is of type %q", ErrUnsupported, config.RootFS.Type)
	}
	for i, d := range config.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("%w: diffID %d %q is no sha256 digest", ErrCorrupt, i+1, d)
		}
	}
	im.platform = config.Platform
	return config.RootFS.DiffIDs, nil
}

const keyRootFS = "rootfs"

// rewriteConfig returns the config with other diffIDs. All other fields keep their
// values to the last digit; their order and the white space between them do not matter.
func rewriteConfig(config map[string]json.RawMessage, diffIDs []digest.Digest) ([]byte, error) {
	rootfs, err := json.Marshal(ocispec.RootFS{Type: "layers", DiffIDs: diffIDs})
	if err != nil {
		return nil, err
	}
	out := make(map[string]json.RawMessage, len(config))
	for key, value := range config {
		out[key] = value
	}
	out[keyRootFS] = rootfs
	return marshal(out)
}

// marshal encodes v without turning <, > and & into escapes.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}
