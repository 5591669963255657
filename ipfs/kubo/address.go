package kubo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	ipld "github.com/ipfs/go-ipld-format"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	dialTimeout = 5 * time.Second
	// maxReply bounds what is read of a response that is neither a block nor a list.
	maxReply = 64 << 10
)

// dialAddr returns the URL of an API address and a client that reaches it.
func dialAddr(addr string) (string, *http.Client, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConnsPerHost: 4 * maxRequests, // of a few calls of Fetch at a time
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}
	network, target, err := parseAddr(addr)
	if err != nil {
		return "", nil, err
	}
	base := target
	if network == "unix" {
		base = "http://unix"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", target)
		}
	}
	return base, &http.Client{Transport: limitBodies{transport}}, nil
}

// parseAddr returns "unix" and a path, or "url" and a URL.
func parseAddr(addr string) (network, target string, err error) {
	bad := func(why any) error {
		if e := new(url.Error); asURLError(why, &e) {
			why = e.Err // the whole has the address, and with it a password
		}
		return fmt.Errorf("IPFS API address %q: %v; use the path of a socket, /ip4/127.0.0.1/tcp/5001 or a URL", redact(addr), why)
	}
	switch {
	case addr == "":
		return "", "", bad("it is empty")
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		u, err := url.Parse(addr)
		if err != nil {
			return "", "", bad(err)
		}
		if u.Host == "" {
			return "", "", bad("it names no host")
		}
		return "url", strings.TrimSuffix(addr, "/"), nil
	case strings.HasPrefix(addr, "/unix/"):
		return "unix", strings.TrimPrefix(addr, "/unix"), nil
	case strings.HasPrefix(addr, "unix://"):
		return "unix", strings.TrimPrefix(addr, "unix://"), nil
	}
	if strings.HasPrefix(addr, "/ip4/") || strings.HasPrefix(addr, "/ip6/") || strings.HasPrefix(addr, "/dns") {
		return parseMultiaddr(addr, bad)
	}
	if strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, ".") {
		return "unix", addr, nil
	}
	if _, _, err := net.SplitHostPort(addr); err != nil {
		return "", "", bad(err)
	}
	return "url", "http://" + addr, nil
}

func asURLError(why any, target **url.Error) bool {
	err, ok := why.(error)
	return ok && errors.As(err, target)
}

// redact hides the credentials that a URL may have, for messages.
func redact(addr string) string {
	start := strings.Index(addr, "://")
	end := strings.LastIndex(addr, "@")
	if start < 0 || end < start {
		return addr
	}
	return addr[:start+3] + "…" + addr[end:]
}

func parseMultiaddr(addr string, bad func(any) error) (network, target string, err error) {
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return "", "", bad(err)
	}
	network, host, err := manet.DialArgs(m)
	if err != nil {
		return "", "", bad(err)
	}
	if !strings.HasPrefix(network, "tcp") {
		return "", "", bad("it is no TCP address")
	}
	return "url", scheme(m) + host, nil
}

func scheme(m ma.Multiaddr) string {
	for _, p := range m.Protocols() {
		if p.Code == ma.P_HTTPS || p.Code == ma.P_TLS {
			return "https://"
		}
	}
	return "http://"
}

// limitBodies bounds all responses: the RPC client reads some of them to their end,
// whatever the status.
type limitBodies struct{ *http.Transport }

func (l limitBodies) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	limit := int64(maxReply)
	switch {
	case resp.StatusCode >= http.StatusBadRequest:
	case strings.HasSuffix(req.URL.Path, "/block/get"):
		limit = ipfs.MaxBlock + 1
	case strings.HasSuffix(req.URL.Path, "/"+manyCommand):
		limit = maxMany * maxSection
	case strings.HasSuffix(req.URL.Path, "/pin/ls"):
		limit = maxPinReply
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, limit), resp.Body}
	return resp, nil
}

// failed says what was being done at which address, and what to do about it.
func (c *Client) failed(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w", what, ctx.Err())
	case ipld.IsNotFound(err), isNotFound(err):
		return fmt.Errorf("%s: %w (IPFS API at %s: %v)", what, ipfs.ErrNotFound, c.addr, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: IPFS API at %s: %w: %w; run as root, or as the user the daemon runs as", what, c.addr, ErrNoDaemon, err)
	case noDaemon(err):
		return fmt.Errorf("%s: IPFS API at %s: %w: %w; is ipcs-snapshotter running? Start it, give the address of another daemon with --ipfs-api, or use --repo DIR to work without one", what, c.addr, ErrNoDaemon, err)
	}
	return fmt.Errorf("%s: IPFS API at %s: %w", what, c.addr, err)
}

func noDaemon(err error) bool {
	var op *net.OpError
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.As(err, &op) && op.Op == "dial"
}

// isNotFound knows the message of daemons that do not have a block.
func isNotFound(err error) bool { return strings.Contains(err.Error(), notFoundMessage) }
