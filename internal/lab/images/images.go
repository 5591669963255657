// Package images makes container images to show, test and measure ipcs with, as OCI
// layouts: a real Debian with Python, made by Debian's own tools ("debian"); one that
// holds everything a layer may hold and simple code gets wrong ("nasty"); and small
// ones, in each media type and compression, for the test that asks for them.
//
// Layers are streams: a function writes the tar, which is hashed, compressed on all
// cores, and hashed again on its way to disk. A layout is written beside its place and
// renamed into it. What Ensure makes is kept from run to run, and made again only when
// its recipe's version changes.
package images

import (
	"context"
	_ "crypto/sha256" // for package digest
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Docker's types of the manifest that OCI's came from.
const (
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Tag is the tag of the image in every layout that the package makes.
const Tag = "latest"

// Compression of a layer.
type Compression int

// The compressions that registries hold.
const (
	Gzip Compression = iota
	Zstd
	None
)

// A Layer is what one layer is made from.
type Layer struct {
	Tar         func(w io.Writer) error
	Compression Compression
	CreatedBy   string // for the image's history
}

// An Image is what an image is made from.
type Image struct {
	Layers []Layer // the lowest first
	Config ocispec.ImageConfig
	Docker bool // Docker's media types in place of OCI's
}

// created is the date of all that the package makes: images are the same each time.
var created = time.Date(2025, 11, 1, 12, 0, 0, 0, time.UTC)

// Write writes the image as an OCI layout to dir, which is replaced if it is there,
// and returns the descriptor of its manifest.
func Write(ctx context.Context, dir string, img Image) (ocispec.Descriptor, error) {
	part := dir + ".part"
	if err := os.RemoveAll(part); err != nil {
		return ocispec.Descriptor{}, err
	}
	l := layout{dir: part}
	desc, err := l.image(ctx, img)
	if err != nil {
		return desc, errors.Join(fmt.Errorf("write image %s: %w", dir, err), os.RemoveAll(part))
	}
	if err := os.RemoveAll(dir); err != nil {
		return desc, err
	}
	return desc, os.Rename(part, dir)
}

// layout is an OCI layout that is being written.
type layout struct{ dir string }

func (l layout) image(ctx context.Context, img Image) (ocispec.Descriptor, error) {
	if err := os.MkdirAll(l.blobs(), 0o755); err != nil {
		return ocispec.Descriptor{}, err
	}
	config := ocispec.Image{
		Created:  &created,
		Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"},
		Config:   img.Config,
		RootFS:   ocispec.RootFS{Type: "layers"},
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	configType := ocispec.MediaTypeImageConfig
	if img.Docker {
		manifest.MediaType, configType = DockerManifest, dockerConfig
	}
	for i, layer := range img.Layers {
		if err := ctx.Err(); err != nil {
			return ocispec.Descriptor{}, err
		}
		desc, diffID, err := l.layer(layer, img.Docker)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		manifest.Layers = append(manifest.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: layer.CreatedBy})
	}
	var err error
	if manifest.Config, err = l.json(configType, config); err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := l.json(manifest.MediaType, manifest)
	if err != nil {
		return desc, err
	}
	desc.Platform = &config.Platform
	return desc, l.index(desc)
}

func (l layout) blobs() string { return filepath.Join(l.dir, ocispec.ImageBlobsDir, "sha256") }

// json writes v as a blob.
func (l layout) json(mediaType string, v any) (ocispec.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := digest.FromBytes(text)
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(text))}
	return desc, os.WriteFile(filepath.Join(l.blobs(), d.Encoded()), text, 0o644)
}

// index writes what makes a folder of blobs a layout.
func (l layout) index(desc ocispec.Descriptor) error {
	desc.Annotations = map[string]string{ocispec.AnnotationRefName: Tag}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{desc},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.dir, ocispec.ImageIndexFile), index, 0o644); err != nil {
		return err
	}
	version := []byte(`{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`)
	return os.WriteFile(filepath.Join(l.dir, ocispec.ImageLayoutFile), version, 0o644)
}

// layer writes one layer's blob and returns its descriptor and diffID.
func (l layout) layer(layer Layer, docker bool) (ocispec.Descriptor, digest.Digest, error) {
	f, err := os.CreateTemp(l.blobs(), "layer-")
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	blob, tar := digest.SHA256.Digester(), digest.SHA256.Digester()
	compress, mediaType, err := compressor(layer.Compression, io.MultiWriter(f, blob.Hash()))
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if docker && layer.Compression == Gzip {
		mediaType = dockerLayer
	}
	if err := layer.Tar(io.MultiWriter(compress, tar.Hash())); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	if err := compress.Close(); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: blob.Digest(), Size: size}
	err = errors.Join(f.Chmod(0o644), os.Rename(f.Name(), filepath.Join(l.blobs(), desc.Digest.Encoded())))
	return desc, tar.Digest(), err
}

// compressor returns a writer that compresses into w, and the media type of that.
func compressor(c Compression, w io.Writer) (io.WriteCloser, string, error) {
	switch c {
	case Zstd:
		z, err := zstd.NewWriter(w)
		return z, ocispec.MediaTypeImageLayerZstd, err
	case None:
		return nopCloser{w}, ocispec.MediaTypeImageLayer, nil
	default:
		return pgzip.NewWriter(w), ocispec.MediaTypeImageLayerGzip, nil
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
