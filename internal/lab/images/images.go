// Package images makes container images to show, test and measure ipcs with, as OCI
// layouts: real ones, made of Debian's packages by Debian's own tools and the steps of
// a Dockerfile ("debian", "node", "torch" and more); one that holds everything a layer
// may hold and simple code gets wrong ("nasty"); ones with many layers or many files;
// and small ones, in each media type and compression, for the test that asks for them.
//
// Layers are streams: a function writes the tar, which is hashed, compressed on all
// cores, and hashed again on its way to disk. An image can stand on another, whose
// layers it then shares to the last bit, as images of a registry do. A layout is
// written beside its place and renamed into it.
//
// Ensure makes images from a table of recipes and keeps them from run to run; one is
// made again only when its recipe's version changes, or the image it stands on. A lock
// per image lets many processes ask for the same one. An image is locked while the one
// that it stands on is, never the other way round, so no two wait for each other.
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
	"slices"
	"time"

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

// A Layer is what one layer is made from.
type Layer struct {
	Tar         func(w io.Writer) error
	Compression Compression
	CreatedBy   string // for the image's history
}

// An Image is what an image is made from.
type Image struct {
	From   *Stored // whose layers are below; nil for none
	Layers []Layer // the lowest first
	Config ocispec.ImageConfig
	Docker bool // Docker's media types in place of OCI's
}

// created is the date of all that the package makes: images are the same each time.
var created = time.Date(2025, 11, 1, 12, 0, 0, 0, time.UTC)

// Write writes the image as an OCI layout to dir, which is replaced if it is there,
// and returns the descriptor of its manifest.
func Write(ctx context.Context, dir string, img Image) (ocispec.Descriptor, error) {
	var desc ocispec.Descriptor
	err := place(dir, func(l layout) error {
		var err error
		desc, err = l.image(ctx, img)
		return err
	})
	return desc, err
}

// part is where a layout is while it is being written.
func part(dir string) string { return dir + ".part" }

// place lets fill write a layout beside dir, and puts it there.
func place(dir string, fill func(l layout) error) error {
	l := layout{dir: part(dir)}
	if err := os.RemoveAll(l.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(l.blobs(), 0o755); err != nil {
		return err
	}
	if err := fill(l); err != nil {
		return errors.Join(fmt.Errorf("write image %s: %w", dir, err), os.RemoveAll(l.dir))
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Rename(l.dir, dir)
}

// layout is an OCI layout that is being written.
type layout struct{ dir string }

func (l layout) image(ctx context.Context, img Image) (ocispec.Descriptor, error) {
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
	if img.From != nil {
		if err := l.link(img.From); err != nil {
			return ocispec.Descriptor{}, err
		}
		manifest.Layers = slices.Clone(img.From.Manifest.Layers)
		config.RootFS.DiffIDs = slices.Clone(img.From.Config.RootFS.DiffIDs)
		config.History = slices.Clone(img.From.Config.History)
	}
	for i, layer := range img.Layers {
		desc, diffID, err := l.layer(ctx, layer, img.Docker)
		if err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("layer %d: %w", i+1, err)
		}
		manifest.Layers = append(manifest.Layers, desc)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ocispec.History{Created: &created, CreatedBy: layer.CreatedBy})
	}
	return l.finish(manifest, configType, config)
}

// link takes over the layers of an image. The blobs of layouts never change, so they
// are on disk once.
func (l layout) link(from *Stored) error {
	for _, desc := range from.Manifest.Layers {
		if err := os.Link(from.blob(desc), filepath.Join(l.blobs(), desc.Digest.Encoded())); err != nil && !os.IsExist(err) {
			return fmt.Errorf("layer of %s: %w", from.dir, err)
		}
	}
	return nil
}

// finish writes what is there besides the layers.
func (l layout) finish(manifest ocispec.Manifest, configType string, config ocispec.Image) (ocispec.Descriptor, error) {
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
func (l layout) layer(ctx context.Context, layer Layer, docker bool) (ocispec.Descriptor, digest.Digest, error) {
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
	err = layer.Tar(whileWanted(ctx, io.MultiWriter(compress, tar.Hash())))
	if err := errors.Join(err, compress.Close()); err != nil { // closed always: its goroutines end
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
