package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/hinshun/ipcs/internal/thishost"
)

const (
	// hostsAge is how long a registry's configuration is kept.
	hostsAge = 10 * time.Minute
	// responseTimeout is how long a registry may take to begin its answer.
	responseTimeout = 15 * time.Second
	// dialTimeout is how long a connection may take.
	dialTimeout = 5 * time.Second
)

// Registries are the registries that images are in, as containerd is told to speak with them.
type Registries struct {
	// HostsDir is containerd's folder of hosts.toml files: mirrors, TLS, headers. Empty: there is none.
	HostsDir string
	// Credentials returns user and secret for a host, to read from a repository, HOST/NAME; empty: none. The host is the
	// registry's, or that of a mirror, and is told no more than this.
	Credentials func(host, repository string) (user, secret string, err error)
	// Own are the host:port of this daemon itself, which it does not ask.
	Own []string
}

// Repository returns a repository by its name, as HOST/NAME. If it is only claimed, it leads to no address of this host or its link,
// and neither does what it says.
func (r Registries) Repository(name string, claimed bool) (Place, error) {
	named, err := reference.ParseNamed(name)
	if err != nil {
		return nil, fmt.Errorf("repository %.200q: %w", name, err)
	}
	if !reference.IsNameOnly(named) {
		return nil, fmt.Errorf("repository %.200q: it has a tag or digest", name)
	}
	host := reference.Domain(named)
	if claimed && isLocal(host) {
		return nil, fmt.Errorf("repository %.200q: only the image says that it is on this host", name)
	}
	return &repository{
		registries: r, host: host, path: reference.Path(named), claimed: claimed, redirects: map[digest.Digest]redirect{},
	}, nil
}

// isLocal says whether a host, with its port, is this one by its name.
func isLocal(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && thishost.Reached(ip) || err != nil && (name == "localhost" || strings.HasSuffix(name, ".localhost"))
}

// A repository is a place in a registry, and its mirrors.
type repository struct {
	registries Registries
	host, path string
	claimed    bool // by an image alone
	anonymous  bool // nothing is said of who asks

	mu        sync.Mutex
	hosts     []configuredHost
	until     time.Time // when hosts are read anew
	redirects map[digest.Digest]redirect
}

// A configuredHost is the registry or a mirror, and the client for where it sends whoever asks.
type configuredHost struct {
	docker.RegistryHost
	elsewhere *http.Client
}

func (r *repository) String() string { return r.host + "/" + r.path }

// Range implements Place.
func (r *repository) Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	if to, ok := r.redirected(d); ok {
		body, err := get(ctx, to.client, to.url, off, n)
		if err == nil || ctx.Err() != nil {
			return body, err
		}
		r.forget(d) // it may have expired before its time
	}
	hosts, err := r.configured(ctx)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, h := range hosts {
		if !h.Capabilities.Has(docker.HostCapabilityPull) {
			continue
		}
		body, err := r.from(ctx, h, d, off, n)
		if err == nil {
			return body, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	r.reset() // another file may stand there now, or other credentials
	if len(errs) == 0 {
		return nil, fmt.Errorf("no host of registry %s may be pulled from, as its hosts.toml says", r.host)
	}
	return nil, errors.Join(errs...)
}

// from reads from the registry itself, or one of its mirrors.
func (r *repository) from(ctx context.Context, h configuredHost, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	resp, err := r.ask(ctx, h, http.MethodGet, "blobs/"+d.String(), rangeOf(off, n))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 && resp.StatusCode < 400 && resp.Header.Get("Location") != "" {
		return r.follow(ctx, h, resp, d, off, n)
	}
	return partOf(resp, off, n)
}

// ask asks the registry itself, or one of its mirrors, for something of the repository, as whom it wants.
func (r *repository) ask(ctx context.Context, h configuredHost, method, what string, header http.Header) (*http.Response, error) {
	ctx = docker.WithScope(ctx, "repository:"+r.path+":pull")
	target := fmt.Sprintf("%s://%s%s/%s/%s", h.Scheme, h.Host, h.Path, r.path, what)
	if !r.isSelf(h.RegistryHost) {
		target += "?ns=" + url.QueryEscape(r.host) // as containerd tells mirrors
	}
	client := *h.Client
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	var seen []*http.Response
	for {
		req, err := newRequest(ctx, method, target, h.Header, header)
		if err != nil {
			return nil, err
		}
		if h.Authorizer != nil {
			if err := h.Authorizer.Authorize(ctx, req); err != nil {
				r.drop()
				return nil, fmt.Errorf("authorize at %s: %w: %w", h.Host, err, ErrAway)
			}
		}
		resp, err := client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", hideQuery(err), ErrAway)
		}
		if resp.StatusCode != http.StatusUnauthorized || h.Authorizer == nil || len(seen) == 2 {
			return resp, nil
		}
		seen = append(seen, resp)
		err = h.Authorizer.AddResponses(ctx, seen)
		if cerr := resp.Body.Close(); err != nil {
			r.drop()
			return nil, errors.Join(fmt.Errorf("%s wants credentials: see that this daemon has credentials for it: %w", h.Host, err), cerr)
		}
	}
}

// follow follows a redirect: where it leads is told nothing that the registry is told.
func (r *repository) follow(ctx context.Context, h configuredHost, resp *http.Response, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	to, err := resp.Location()
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("redirect of %s: %w", h.Host, err)
	}
	body, err := get(ctx, h.elsewhere, to.String(), off, n)
	if err != nil {
		return nil, fmt.Errorf("where %s leads: %w", h.Host, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.redirects[d] = redirect{to.String(), h.elsewhere, expiry(to, time.Now())}
	return body, nil
}

// get reads from a URL that needs no credentials of ours.
func get(ctx context.Context, client *http.Client, target string, off, n int64) (io.ReadCloser, error) {
	req, err := newRequest(ctx, http.MethodGet, target, rangeOf(off, n))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hideQuery(err), ErrAway)
	}
	return partOf(resp, off, n)
}

func newRequest(ctx context.Context, method, target string, headers ...http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return nil, hideQuery(err)
	}
	for _, header := range headers {
		for name, values := range header {
			req.Header[name] = values
		}
	}
	// What Go's transport would decompress has another length than what was asked for.
	req.Header.Set("Accept-Encoding", "identity")
	return req, nil
}

// rangeOf is the header of a request for n bytes, or all if that is negative.
func rangeOf(off, n int64) http.Header {
	header := http.Header{}
	if n >= 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	return header
}

// partOf returns the body of a response that is what was asked for.
func partOf(resp *http.Response, off, n int64) (io.ReadCloser, error) {
	host := resp.Request.URL.Host
	switch {
	case n < 0 && resp.StatusCode == http.StatusOK:
		return resp.Body, nil
	case resp.StatusCode == http.StatusPartialContent:
		var from int64
		if _, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-", &from); err != nil || from != off {
			return nil, errors.Join(fmt.Errorf("%s answers with the range %.80q, not from %d", host, resp.Header.Get("Content-Range"), off), resp.Body.Close())
		}
		return resp.Body, nil
	case resp.StatusCode == http.StatusOK && off == 0:
		return resp.Body, nil // more than was asked for
	case resp.StatusCode == http.StatusOK:
		return nil, errors.Join(fmt.Errorf("%s gives blobs as a whole only: %w", host, errors.ErrUnsupported), resp.Body.Close())
	}
	return nil, errors.Join(&StatusError{host, resp.StatusCode}, resp.Body.Close())
}

// Unwrap says whether it is worth asking again.
func (e *StatusError) Unwrap() error {
	if e.Code >= 500 || e.Code == http.StatusTooManyRequests || e.Code == http.StatusRequestTimeout {
		return ErrAway
	}
	return nil
}

// A StatusError is an answer that is no blob.
type StatusError struct {
	Host string
	Code int
}

func (e *StatusError) Error() string {
	switch e.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("%s refuses with %d %s: see that this daemon has credentials for it", e.Host, e.Code, http.StatusText(e.Code))
	case http.StatusNotFound:
		return fmt.Sprintf("%s has no such blob (404)", e.Host)
	}
	return fmt.Sprintf("%s answers with %d %s", e.Host, e.Code, http.StatusText(e.Code))
}

// hideQuery takes the query out of the URL in an error: whoever sees it may use it.
func hideQuery(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		failed.URL, _, _ = strings.Cut(failed.URL, "?")
	}
	return err
}

// configured returns the hosts of the registry, the mirrors first.
func (r *repository) configured(ctx context.Context) ([]configuredHost, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hosts != nil && time.Now().Before(r.until) {
		return r.hosts, nil
	}
	// containerd makes a client for all hosts, and copies of it for those that need something else.
	bases, common := map[*http.Client]*http.Transport{}, (*http.Transport)(nil)
	opts := config.HostOptions{
		Credentials: func(host string) (string, string, error) { return r.registries.Credentials(host, r.String()) },
		UpdateClient: func(c *http.Client) error {
			base, ok := c.Transport.(*http.Transport)
			if !ok { // of a copy that this was called for before
				bases[c] = common
				return nil
			}
			limit(base)
			if r.anonymous && base.TLSClientConfig != nil {
				base.TLSClientConfig.Certificates = nil
			}
			if bases[c] = base; common == nil {
				common = base
			}
			if r.claimed {
				c.Transport = patient(guarded(base))
			} else {
				c.Transport = patient(base)
			}
			return nil
		},
	}
	if r.registries.HostsDir != "" {
		opts.HostDir = config.HostDirFromRoot(r.registries.HostsDir)
	}
	hosts, err := config.ConfigureHosts(ctx, opts)(r.host)
	if err != nil {
		return nil, fmt.Errorf("configuration of registry %s: %w", r.host, err)
	}
	r.hosts, r.until = nil, time.Now().Add(hostsAge)
	for _, h := range hosts {
		if slices.Contains(r.registries.Own, h.Host) {
			continue
		}
		if r.anonymous {
			if !r.isSelf(h) {
				continue // a mirror may have credentials of its own
			}
			// What is configured is not told anybody who gives tokens, either.
			h.Header, h.Authorizer = nil, docker.NewDockerAuthorizer(docker.WithAuthClient(h.Client))
		}
		r.hosts = append(r.hosts, configuredHost{h, elsewhere(bases[h.Client], h.Host)})
	}
	return r.hosts, nil
}

// limit bounds what a server that does not answer costs.
func limit(t *http.Transport) {
	t.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	t.ResponseHeaderTimeout, t.MaxIdleConnsPerHost = responseTimeout, maxRequests
}

// patient has what is worth it be asked again, soon: 429, 5xx and what timed out. What lasts longer is for a Source, which
// asks others meanwhile.
func patient(base http.RoundTripper) http.RoundTripper {
	t := retry.NewTransport(base)
	t.Policy = func() retry.Policy {
		return &retry.GenericPolicy{
			Retryable: retry.DefaultPredicate, Backoff: retry.DefaultBackoff,
			MinWait: 200 * time.Millisecond, MaxWait: 3 * time.Second, MaxRetry: 2,
		}
	}
	return t
}

// isSelf says whether a host is the registry itself, and no mirror of it.
func (r *repository) isSelf(h docker.RegistryHost) bool {
	return h.Host == r.host || r.host == "docker.io" && h.Host == "registry-1.docker.io"
}

// reset has the configuration of the registry read anew, but no more often than every few seconds.
func (r *repository) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if soon := time.Now().Add(5 * time.Second); soon.Before(r.until) {
		r.until = soon
	}
}

// drop forgets the configuration of the registry: a token that could not be had is remembered in it.
func (r *repository) drop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hosts = nil
}
