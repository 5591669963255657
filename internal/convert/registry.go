package convert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/hinshun/ipcs/internal/dockerlogin"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"
)

var (
	_ Source = (*registryImage)(nil)
	_ Target = (*registryImage)(nil)
)

// Time limits of requests. There is none for reading a body: a blob may be large, and
// the user can interrupt.
const (
	dialTimeout     = 5 * time.Second // five retries follow
	responseTimeout = time.Minute
)

// A registryImage is an image in a registry.
type registryImage struct {
	name      string // in full, for messages
	reference string // tag or digest
	repo      *remote.Repository
	client    *auth.Client
	transport *http.Transport
}

func (a Access) openRegistry(ref string) (*registryImage, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w; want HOST/NAME:TAG, oci:DIR:TAG, containerd:REF or ipfs:CID", ErrReference, ref, err)
	}
	r := &registryImage{name: named.String()}
	switch n := named.(type) {
	case reference.Digested:
		r.reference = n.Digest().String()
	case reference.Tagged:
		r.reference = n.Tag()
	}
	if r.repo, err = remote.NewRepository(named.Name()); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrReference, ref, err)
	}
	r.repo.PlainHTTP = a.PlainHTTP || isLoopback(reference.Domain(named))
	r.transport = newTransport()
	r.client = &auth.Client{
		Client: &http.Client{Transport: retry.NewTransport(r.transport)},
		Cache:  auth.NewCache(),
	}
	r.client.SetUserAgent("ipcs-convert")
	r.repo.Client = r.client
	return r, r.useDockerConfig()
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: responseTimeout,
		ForceAttemptHTTP2:     true,
	}
}

// useDockerConfig takes credentials from where "docker login" puts them.
func (r *registryImage) useDockerConfig() (err error) {
	r.client.Credential, err = dockerlogin.Credential()
	return err
}

// isLoopback reports whether a registry is on this host, where HTTP is what they speak.
func isLoopback(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.IsLoopback()
}

func (r *registryImage) String() string { return r.name }

// Origin implements Target.
func (r *registryImage) Origin() string {
	return r.repo.Reference.Registry + "/" + r.repo.Reference.Repository
}

func (r *registryImage) Close(context.Context) error {
	r.transport.CloseIdleConnections()
	return nil
}

// Resolve implements Source.
func (r *registryImage) Resolve(ctx context.Context) (ocispec.Descriptor, error) {
	desc, err := r.repo.Resolve(r.scope(ctx, auth.ActionPull), r.reference)
	return desc, r.explain(err)
}

// Fetch implements Source.
func (r *registryImage) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := r.repo.Fetch(r.scope(ctx, auth.ActionPull), desc)
	if err != nil {
		return nil, r.explain(err)
	}
	if rs, ok := rc.(io.ReadSeekCloser); ok {
		return &resumer{ctxErr: ctx.Err, r: rs, size: desc.Size}, nil
	}
	return rc, nil
}

// Prepare implements Target: it opens an upload and drops it, which needs the same
// rights as a push.
func (r *registryImage) Prepare(ctx context.Context) error {
	resp, err := r.do(ctx, http.MethodPost, r.uploadURL())
	if err != nil {
		return r.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		return r.explain(responseError(resp))
	}
	// A registry that cannot cancel uploads forgets them after a while.
	if location, err := resp.Location(); err == nil {
		if resp, err := r.do(ctx, http.MethodDelete, location.String()); err == nil {
			return resp.Body.Close()
		}
	}
	return ctx.Err()
}

func (r *registryImage) uploadURL() string {
	scheme := "https"
	if r.repo.PlainHTTP {
		scheme = "http"
	}
	return fmt.Sprintf("%s://%s/v2/%s/blobs/uploads/", scheme, r.repo.Reference.Host(), r.repo.Reference.Repository)
}

func (r *registryImage) do(ctx context.Context, method, target string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(r.scope(ctx, auth.ActionPull, auth.ActionPush), method, target, nil)
	if err != nil {
		return nil, err
	}
	return r.client.Do(req)
}

// responseError reads the error in a response.
func responseError(resp *http.Response) error {
	e := &errcode.ErrorResponse{Method: resp.Request.Method, URL: resp.Request.URL, StatusCode: resp.StatusCode}
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	// A body that is something else adds nothing to the status.
	if json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&body) == nil {
		e.Errors = body.Errors
	}
	return e
}

// Push implements Target.
func (r *registryImage) Push(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	ctx = r.scope(ctx, auth.ActionPull, auth.ActionPush)
	if ok, err := r.repo.Exists(ctx, desc); err == nil && ok {
		return nil
	}
	return r.explain(r.repo.Push(ctx, desc, bytes.NewReader(data)))
}

// Copy implements copier: within a registry, nothing moves.
func (r *registryImage) Copy(ctx context.Context, src Source, desc ocispec.Descriptor) error {
	ctx = r.scope(ctx, auth.ActionPull, auth.ActionPush)
	if ok, err := r.repo.Exists(ctx, desc); err == nil && ok {
		return nil
	}
	if from, ok := src.(*registryImage); ok && from.repo.Reference.Registry == r.repo.Reference.Registry {
		ctx := auth.AppendRepositoryScope(ctx, from.repo.Reference, auth.ActionPull)
		return r.explain(r.repo.Mount(ctx, desc, from.repo.Reference.Repository, func() (io.ReadCloser, error) { return src.Fetch(ctx, desc) }))
	}
	return readChecked(ctx, src, desc, func(blob io.Reader) error { return r.explain(r.repo.Push(ctx, desc, blob)) })
}

// PushStream implements Target. A registry must be told digest and size first, so all is
// written to a temporary file.
func (r *registryImage) PushStream(ctx context.Context, mediaType string, write func(io.Writer) error) (desc ocispec.Descriptor, err error) {
	f, err := os.CreateTemp("", "ipcs-convert-*")
	if err != nil {
		return desc, fmt.Errorf("%w; TMPDIR names another folder", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// Nobody needs the name, and so it is not left behind.
	if err := os.Remove(f.Name()); err != nil {
		return desc, err
	}
	sum := newSummer(f)
	if err := write(sum); err != nil {
		return desc, err
	}
	desc = ocispec.Descriptor{MediaType: mediaType, Digest: sum.digest(), Size: sum.size}
	ctx = r.scope(ctx, auth.ActionPull, auth.ActionPush)
	if ok, err := r.repo.Exists(ctx, desc); err == nil && ok {
		return desc, nil
	}
	return desc, r.explain(r.repo.Push(ctx, desc, io.NewSectionReader(f, 0, desc.Size)))
}

// Tag implements Target.
func (r *registryImage) Tag(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	ctx = r.scope(ctx, auth.ActionPull, auth.ActionPush)
	return r.explain(r.repo.PushReference(ctx, desc, bytes.NewReader(data), r.reference))
}

// scope asks for all rights with the first token.
func (r *registryImage) scope(ctx context.Context, actions ...string) context.Context {
	return auth.AppendRepositoryScope(ctx, r.repo.Reference, actions...)
}

// explain says what is wrong in the user's words, and what to do.
func (r *registryImage) explain(err error) error {
	host := r.repo.Reference.Registry
	hideQuery(err)
	var resp *errcode.ErrorResponse
	var netErr *net.OpError
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return fmt.Errorf("%s wants credentials, and there are none: run \"docker login %s\": %w", host, host, err)
	case errors.As(err, &resp):
		return r.explainStatus(resp, err)
	case isNotFound(err):
		return fmt.Errorf("%w in the registry: %w", errNoImage, err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%s speaks plain HTTP: pass --plain-http if the network to it is safe: %w", host, err)
	case errors.As(err, &netErr) && netErr.Op == "dial":
		return fmt.Errorf("registry %s cannot be reached: %w", host, err)
	}
	return err
}

// hideQuery takes the query out of the URL in an error: registries send clients to URLs
// that whoever sees them may use, and tokens stand in those of uploads.
func hideQuery(err error) {
	var resp *errcode.ErrorResponse
	if errors.As(err, &resp) && resp.URL != nil && resp.URL.RawQuery != "" {
		u := *resp.URL
		u.RawQuery, resp.URL = "", &u
	}
	var failed *url.Error
	if errors.As(err, &failed) {
		failed.URL, _, _ = strings.Cut(failed.URL, "?")
	}
}

func (r *registryImage) explainStatus(resp *errcode.ErrorResponse, err error) error {
	host := r.repo.Reference.Registry
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return fmt.Errorf("%s does not accept the credentials, or wants some, or has no such image: run \"docker login %s\": %w", host, host, err)
	case http.StatusForbidden:
		return fmt.Errorf("you have no right to do this on %s; \"docker login %s\" changes who you are: %w", host, host, err)
	case http.StatusNotFound:
		return fmt.Errorf("%w in the registry: %w", errNoImage, err)
	}
	return err
}
