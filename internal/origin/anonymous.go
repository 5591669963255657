package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifestTypes are what a manifest may be.
var manifestTypes = strings.Join([]string{
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, images.MediaTypeDockerSchema2Manifest, images.MediaTypeDockerSchema2ManifestList, "*/*",
}, ", ")

// A Public is a repository as it is seen by who has no credentials: no user, no certificate of his own, and no headers that are configured.
type Public struct{ repo *repository }

// Public returns a repository by its name, as HOST/NAME, for who has no credentials.
func (r Registries) Public(name string) (*Public, error) {
	r.Credentials = func(string, string) (user, secret string, err error) { return "", "", nil }
	place, err := r.Repository(name, false)
	if err != nil {
		return nil, err
	}
	repo := place.(*repository) // as Repository makes it
	repo.anonymous = true
	return &Public{repo}, nil
}

// Range reads n bytes of a blob from off on. The error is a StatusError, wrapped, if they are not for everybody, and ErrAway if it is worth asking again.
func (p *Public) Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	return p.repo.Range(ctx, d, off, n)
}

// HasManifest says whether anybody gets the manifest with this digest, which is not read. Errors are those of Range.
func (p *Public) HasManifest(ctx context.Context, d digest.Digest) (bool, error) {
	hosts, err := p.repo.configured(ctx)
	if err != nil {
		return false, err
	}
	var errs []error
	for _, h := range hosts {
		if !h.Capabilities.Has(docker.HostCapabilityPull) {
			continue
		}
		resp, err := p.repo.ask(ctx, h, http.MethodHead, "manifests/"+d.String(), http.Header{"Accept": {manifestTypes}})
		if err == nil {
			err = resp.Body.Close()
		}
		switch {
		case err != nil:
		case resp.StatusCode != http.StatusOK:
			err = &StatusError{h.Host, resp.StatusCode}
		case resp.Header.Get("Docker-Content-Digest") != d.String():
			err = fmt.Errorf("%s does not say that it has manifest %s", h.Host, d)
		default:
			return true, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}
