package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Stored is the image in an OCI layout.
type Stored struct {
	Target   ocispec.Descriptor // of the manifest
	Manifest ocispec.Manifest
	Config   ocispec.Image
	dir      string
}

// Open reads the layout at dir, which holds one image of one platform.
func Open(dir string) (*Stored, error) {
	s := &Stored{dir: dir}
	var index ocispec.Index
	if err := readJSON(filepath.Join(dir, ocispec.ImageIndexFile), &index); err != nil {
		return nil, fmt.Errorf("layout %s: %w", dir, err)
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("layout %s has %d images, want 1", dir, len(index.Manifests))
	}
	s.Target = index.Manifests[0]
	if err := readJSON(s.blob(s.Target), &s.Manifest); err != nil {
		return nil, fmt.Errorf("manifest in layout %s: %w", dir, err)
	}
	if err := readJSON(s.blob(s.Manifest.Config), &s.Config); err != nil {
		return nil, fmt.Errorf("configuration in layout %s: %w", dir, err)
	}
	if len(s.Manifest.Layers) != len(s.Config.RootFS.DiffIDs) {
		return nil, fmt.Errorf("layout %s has %d layers and %d diffIDs", dir, len(s.Manifest.Layers), len(s.Config.RootFS.DiffIDs))
	}
	return s, nil
}

func readJSON(file string, v any) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, v)
}

// blob is the path of a blob.
func (s *Stored) blob(desc ocispec.Descriptor) string {
	return filepath.Join(s.dir, ocispec.ImageBlobsDir, desc.Digest.Algorithm().String(), desc.Digest.Encoded())
}

// read calls f with the tar of a layer, which need not read all of it.
func (s *Stored) read(layer ocispec.Descriptor, f func(tar io.Reader) error) error {
	file, err := os.Open(s.blob(layer))
	if err != nil {
		return err
	}
	defer file.Close()
	tar, err := decompressor(layer.MediaType, file)
	if err != nil {
		return fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	if err := errors.Join(f(tar), tar.Close()); err != nil {
		return fmt.Errorf("layer %s: %w", layer.Digest, err)
	}
	return nil
}

// Tars calls f with the tar of each layer, the lowest first.
func (s *Stored) Tars(f func(tar io.Reader) error) error {
	for _, layer := range s.Manifest.Layers {
		if err := s.read(layer, f); err != nil {
			return err
		}
	}
	return nil
}

// unpack unpacks all layers into one tree.
func (s *Stored) unpack(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, layer := range s.Manifest.Layers {
		if err := s.read(layer, func(tar io.Reader) error {
			_, err := archive.Apply(ctx, dir, tar)
			return err
		}); err != nil {
			return fmt.Errorf("unpack %s: %w", s.dir, err)
		}
	}
	return nil
}

// Recompress writes the image of the layout at dir to the layout at to, with its
// layers in another compression: the tars, and so the diffIDs and the configuration,
// are the same.
func Recompress(ctx context.Context, dir, to string, c Compression) error {
	s, err := Open(dir)
	if err != nil {
		return err
	}
	return place(to, func(l layout) error {
		manifest := ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: s.Manifest.Annotations,
		}
		for i, layer := range s.Manifest.Layers {
			same := Layer{Compression: c, Tar: func(w io.Writer) error {
				return s.read(layer, func(tar io.Reader) error {
					_, err := io.Copy(w, tar)
					return err
				})
			}}
			desc, diffID, err := l.layer(ctx, same, false)
			if err != nil {
				return err
			}
			if diffID != s.Config.RootFS.DiffIDs[i] {
				return fmt.Errorf("layer %d of %s is damaged: its tar is %s, want %s", i+1, dir, diffID, s.Config.RootFS.DiffIDs[i])
			}
			manifest.Layers = append(manifest.Layers, desc)
		}
		_, err := l.finish(manifest, ocispec.MediaTypeImageConfig, s.Config)
		return err
	})
}
