package convert

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

// errNoOriginal says that an image does not tell what it was made from.
var errNoOriginal = errors.New("no original travels with the image")

// annotateOriginal lets the image travel with what was made of it (spec/image.md, "The
// original"). A kept config is the original one, and is not needed twice.
func (im *image) annotateOriginal(annotations map[string]string, keep bool) error {
	// Not the digest it was read by, whose algorithm may be another.
	annotations[mediatype.AnnotationManifest] = digest.FromBytes(im.data).String()
	var err error
	if annotations[mediatype.AnnotationManifestData], err = packText(im.data); err != nil || keep {
		return err
	}
	annotations[mediatype.AnnotationConfigData], err = packText(im.configData)
	return err
}

// original returns the image that this one was made from. It believes nothing: the bytes
// must have their digests, and making an ipcs image of that original again must give this
// image's config. So neither the config of another image nor one that was changed after
// the conversion is replaced by what travels. The error is errNoOriginal or ErrCorrupt,
// wrapped.
func (im *image) original() (*image, error) {
	digested, ok := im.annotations[mediatype.AnnotationManifest]
	if !ok {
		return nil, errNoOriginal
	}
	if err := digest.Digest(digested).Validate(); err != nil {
		return nil, fmt.Errorf("original manifest %.80q: %w: %w", digested, ErrCorrupt, err)
	}
	data, err := unpackText(im.annotations[mediatype.AnnotationManifestData], maxManifest)
	if err != nil {
		return nil, fmt.Errorf("original manifest %s: %w", digested, err)
	}
	if got := digest.FromBytes(data); got.String() != digested {
		return nil, fmt.Errorf("original manifest %s: %w: the digest of what travels is %s", digested, ErrCorrupt, got)
	}
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	if _, err := kindOf(&desc, data); err != nil {
		return nil, fmt.Errorf("original manifest %s: %w", digested, err)
	}
	manifest, err := parseManifest(data, checkTar)
	if err != nil {
		return nil, fmt.Errorf("original manifest %s: %w", digested, err)
	}
	config := im.configData
	if packed, ok := im.annotations[mediatype.AnnotationConfigData]; ok {
		if config, err = unpackText(packed, maxConfig); err != nil {
			return nil, fmt.Errorf("original config: %w", err)
		}
	}
	if d := manifest.Config.Digest; d.Validate() != nil || d.Algorithm().FromBytes(config) != d {
		return nil, fmt.Errorf("original config %.80q: %w: what travels has another digest", d, ErrCorrupt)
	}
	orig, err := newImage(desc, data, manifest, config)
	if err != nil {
		return nil, fmt.Errorf("original %s: %w", digested, err)
	}
	orig.platform = im.platform
	return orig, im.isMadeFrom(orig)
}

// isMadeFrom fails unless converting orig gives the config of this image.
func (im *image) isMadeFrom(orig *image) error {
	if len(orig.layers) != len(im.layers) {
		return fmt.Errorf("%w: the original %s has %d layers, the image %d", ErrCorrupt, orig.desc.Digest, len(orig.layers), len(im.layers))
	}
	kept := im.kept()
	var diffIDs []digest.Digest
	for i, l := range im.layers {
		if l.desc.MediaType != mediatype.Layer {
			return fmt.Errorf("%w: layer %d is no ipcs layer, so the image is not what the original %s was converted to", ErrCorrupt, i+1, orig.desc.Digest)
		}
		diffIDs = append(diffIDs, l.desc.Digest)
	}
	if kept {
		if !bytes.Equal(im.configData, orig.configData) {
			return fmt.Errorf("%w: its config is not that of the original %s", ErrCorrupt, orig.desc.Digest)
		}
		return nil
	}
	config, err := rewriteConfig(orig.config, diffIDs)
	if err != nil {
		return err
	}
	if !bytes.Equal(config, im.configData) {
		return fmt.Errorf("%w: its config is not what the config of the original %s becomes", ErrCorrupt, orig.desc.Digest)
	}
	return nil
}

// kept reports whether the image was converted with diffIDs kept.
func (im *image) kept() bool {
	return slices.ContainsFunc(im.layers, func(l sourceLayer) bool { return isKept(l.desc) })
}

func isKept(desc ocispec.Descriptor) bool {
	return desc.MediaType == mediatype.Layer && desc.Annotations[mediatype.AnnotationKeep] == "true"
}

// packText makes a small text of bytes.
func packText(data []byte) (string, error) {
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return "", err
	}
	defer zip.Close()
	return base64.StdEncoding.EncodeToString(zip.EncodeAll(data, nil)), nil
}

// textWindow is the largest zstd window that is read: that of the highest levels.
const textWindow = 8 << 20

// unpackText is the inverse of packText, of at most limit bytes.
func unpackText(text string, limit int) ([]byte, error) {
	if text == "" {
		return nil, errNoOriginal
	}
	// The decoder would pass over line feeds.
	if strings.ContainsAny(text, "\r\n") {
		return nil, fmt.Errorf("%w: a line feed in base64", ErrCorrupt)
	}
	packed, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	zip, err := zstd.NewReader(bytes.NewReader(packed),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(textWindow))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	defer zip.Close()
	data, err := io.ReadAll(io.LimitReader(zip, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%w: it has more than the %d bytes allowed", ErrCorrupt, limit)
	}
	return data, nil
}

// restore returns the manifest of an original with other layers, and its config. Everything
// else stays; with the layers it had, it stays to the last byte.
func (im *image) restore(layers []ocispec.Descriptor, _ []digest.Digest) (manifest, config document, err error) {
	config = document{bare(im.configDesc), im.configData}
	if slices.EqualFunc(layers, im.layers, func(a ocispec.Descriptor, b sourceLayer) bool { return sameBlob(a, b.desc) }) {
		manifest, err = asDocument(im.desc.MediaType, im.data)
		return manifest, config, err
	}
	manifest, err = im.replace(map[string]any{"layers": layers})
	return manifest, config, err
}

// sameBlob reports whether two descriptors name the same content by the same type.
func sameBlob(a, b ocispec.Descriptor) bool {
	return a.Digest == b.Digest && a.Size == b.Size && a.MediaType == b.MediaType
}

// rewrite returns the manifest and the config of an ipcs image that has no original, with
// other layers.
func (im *image) rewrite(layers []ocispec.Descriptor, diffIDs []digest.Digest) (manifest, config document, err error) {
	config = document{bare(im.configDesc), im.configData}
	if !im.kept() {
		if config.data, err = rewriteConfig(im.config, diffIDs); err != nil {
			return manifest, config, err
		}
		config.desc.Digest, config.desc.Size = digest.FromBytes(config.data), int64(len(config.data))
	}
	annotations := map[string]string{}
	for key, value := range im.annotations {
		if !describesBlob(key) {
			annotations[key] = value
		}
	}
	manifest, err = im.replace(map[string]any{"layers": layers, "config": config.desc, "annotations": annotations})
	return manifest, config, err
}

// bare is a descriptor of content and nothing else.
func bare(desc ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
}

// replace returns the manifest with other values of these fields.
func (im *image) replace(fields map[string]any) (document, error) {
	var manifest map[string]json.RawMessage
	if err := json.Unmarshal(im.data, &manifest); err != nil {
		return document{}, err
	}
	for key, value := range fields {
		raw, err := marshal(value)
		if err != nil {
			return document{}, err
		}
		manifest[key] = raw
	}
	return newDocument(im.desc.MediaType, manifest)
}
