package images

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Copy copies an image, source being "oci:DIR:TAG" or a registry reference, to target
// in a registry that speaks plain HTTP to client. Of an image with many platforms it
// copies the one of linux/amd64.
func Copy(ctx context.Context, source, target string, client *http.Client) (ocispec.Descriptor, error) {
	src, tag, err := open(source)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", source, err)
	}
	dst, err := repository(target, client)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	opts := oras.DefaultCopyOptions
	opts.WithTargetPlatform(&ocispec.Platform{OS: "linux", Architecture: "amd64"})
	desc, err := oras.Copy(ctx, src, tag, dst, dst.Reference.ReferenceOrDefault(), opts)
	if err != nil {
		return desc, fmt.Errorf("copy %s to %s: %w", source, target, err)
	}
	return desc, nil
}

// CopyAll copies all that a tag is, within registries that speak plain HTTP to client.
func CopyAll(ctx context.Context, source, target string, client *http.Client) (ocispec.Descriptor, error) {
	src, err := repository(source, client)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	dst, err := repository(target, client)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc, err := oras.Copy(ctx, src, src.Reference.ReferenceOrDefault(), dst, dst.Reference.ReferenceOrDefault(), oras.DefaultCopyOptions)
	if err != nil {
		return desc, fmt.Errorf("copy %s to %s: %w", source, target, err)
	}
	return desc, nil
}

// ReadIndex reads the index that a tag is, in a registry that speaks plain HTTP to client.
func ReadIndex(ctx context.Context, ref string, client *http.Client, index *ocispec.Index) error {
	repo, err := repository(ref, client)
	if err != nil {
		return err
	}
	_, data, err := oras.FetchBytes(ctx, repo, repo.Reference.ReferenceOrDefault(), oras.DefaultFetchBytesOptions)
	if err != nil {
		return fmt.Errorf("read %s: %w", ref, err)
	}
	return json.Unmarshal(data, index)
}

// open returns where an image is, and its tag there.
func open(source string) (oras.ReadOnlyTarget, string, error) {
	if rest, ok := strings.CutPrefix(source, "oci:"); ok {
		dir, tag := rest, Tag
		if i := strings.LastIndexByte(rest, ':'); i > strings.LastIndexByte(rest, '/') {
			dir, tag = rest[:i], rest[i+1:]
		}
		store, err := oci.New(dir)
		return store, tag, err
	}
	ref, err := registry.ParseReference(source)
	if err != nil {
		return nil, "", err
	}
	repo, err := remote.NewRepository(ref.String())
	if err != nil {
		return nil, "", err
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, "", err
	}
	repo.Client = &auth.Client{Client: http.DefaultClient, Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	return repo, ref.ReferenceOrDefault(), nil
}
