package images

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
)

// A Remote is an image in a registry, taken apart so that tests can make another of
// its parts.
type Remote struct {
	Manifest ocispec.Manifest
	Config   ocispec.Image
}

// Get reads an image's manifest and configuration from a registry over plain HTTP.
func Get(ctx context.Context, ref string, client *http.Client) (*Remote, error) {
	repo, err := repository(ref, client)
	if err != nil {
		return nil, err
	}
	_, rc, err := repo.FetchReference(ctx, repo.Reference.ReferenceOrDefault())
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	var r Remote
	if err := decode(rc, &r.Manifest); err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	if rc, err = repo.Fetch(ctx, r.Manifest.Config); err != nil {
		return nil, fmt.Errorf("configuration of %s: %w", ref, err)
	}
	return &r, decode(rc, &r.Config)
}

func decode(rc io.ReadCloser, v any) error {
	defer rc.Close()
	return json.NewDecoder(io.LimitReader(rc, 8<<20)).Decode(v)
}

// Put writes the image to a registry, whose repository must hold its layers.
func (r *Remote) Put(ctx context.Context, ref string, client *http.Client) error {
	repo, err := repository(ref, client)
	if err != nil {
		return err
	}
	config, err := json.Marshal(r.Config)
	if err != nil {
		return err
	}
	manifest := r.Manifest
	manifest.Config.Digest, manifest.Config.Size = digest.FromBytes(config), int64(len(config))
	if err := repo.Push(ctx, manifest.Config, bytes.NewReader(config)); err != nil {
		return fmt.Errorf("configuration of %s: %w", ref, err)
	}
	text, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	desc := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	if err := repo.PushReference(ctx, desc, bytes.NewReader(text), repo.Reference.ReferenceOrDefault()); err != nil {
		return fmt.Errorf("manifest of %s: %w", ref, err)
	}
	return nil
}

// Mix makes an image of the layers of two that have as many: an 'a' or 'b' in pattern
// for each layer says whose it is.
func Mix(pattern string, a, b *Remote) (*Remote, error) {
	n := len(pattern)
	if len(a.Manifest.Layers) != n || len(b.Manifest.Layers) != n ||
		len(a.Config.RootFS.DiffIDs) != n || len(b.Config.RootFS.DiffIDs) != n {
		return nil, fmt.Errorf("mix %q: the images have %d and %d layers", pattern, len(a.Manifest.Layers), len(b.Manifest.Layers))
	}
	mixed := &Remote{Manifest: a.Manifest, Config: a.Config}
	mixed.Manifest.Layers, mixed.Config.RootFS.DiffIDs = nil, nil
	for i, from := range pattern {
		r := a
		if from == 'b' {
			r = b
		}
		mixed.Manifest.Layers = append(mixed.Manifest.Layers, r.Manifest.Layers[i])
		mixed.Config.RootFS.DiffIDs = append(mixed.Config.RootFS.DiffIDs, r.Config.RootFS.DiffIDs[i])
	}
	return mixed, nil
}

// repository is that of a reference in a registry over plain HTTP.
func repository(ref string, client *http.Client) (*remote.Repository, error) {
	repo, err := remote.NewRepository(ref)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, err)
	}
	repo.PlainHTTP, repo.Client = true, client
	return repo, nil
}
