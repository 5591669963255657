package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Layout returns the place that an OCI layout is: a folder, also one of a network's file system, or the URL of one
// on any web server or object store. For a URL with a query, as those that are signed have, each blob's has it, too.
func Layout(where string) (Place, error) {
	if filepath.IsAbs(where) {
		return folder(where), nil
	}
	u, err := url.Parse(where)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%.200q is neither the path of a folder from / nor a URL with http or https", where)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	limit(t)
	return &website{u, &http.Client{Transport: patient(t), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, elsewhere(t, u.Host)}, nil
}

// A folder is an OCI layout.
type folder string

func (f folder) String() string { return string(f) }

// Range implements Place.
func (f folder) Range(_ context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(string(f), ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", err, ErrAway)
	case n < 0:
		return file, nil
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(file, off, n), file}, nil
}

// A website is an OCI layout that is served over HTTP.
type website struct {
	base              *url.URL
	client, elsewhere *http.Client
}

func (w *website) String() string { return w.base.Scheme + "://" + w.base.Host + w.base.Path }

// Range implements Place.
func (w *website) Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	u := *w.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/" + ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded()
	req, err := newRequest(ctx, http.MethodGet, u.String(), rangeOf(off, n))
	if err != nil {
		return nil, err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hideQuery(err), ErrAway)
	}
	to, err := resp.Location()
	if err != nil {
		return partOf(resp, off, n)
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	return get(ctx, w.elsewhere, to.String(), off, n)
}
