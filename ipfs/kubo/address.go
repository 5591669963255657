package kubo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
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
	// maxPinAdd bounds the answer to pin/add: Kubo says twice a second how far it is.
	maxPinAdd = 4 << 20
	// maxPeersReply bounds the answer to swarm/peers: some ten thousand peers.
	maxPeersReply = 4 << 20
	// readBuffer is that of a connection: a leaf comes in pieces of 32 KiB.
	readBuffer = 64 << 10

	// Auto is the address of the Kubo whose repository is in $IPFS_PATH, or else in ~/.ipfs.
	Auto = "auto"
	// apiFile is where a Kubo that runs says in its repository where its RPC is.
	apiFile    = "api"
	maxAPIFile = 4 << 10
)

var errNoHostPort = errors.New("it is no host and port")

// An endpoint is where a daemon answers.
type endpoint struct {
	url  string
	path string // of a socket, a file as apiFile, or a repository; "": the URL says it all
}

// dialAddr returns the URL of an API address and a client that reaches it over so many
// connections at a time and more.
func dialAddr(addr string, conns int) (string, *http.Client, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConnsPerHost: conns,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
		ReadBufferSize:      readBuffer,
	}
	at, err := parseAddr(addr)
	if err != nil {
		return "", nil, err
	}
	if at.path != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			network, target, err := locate(at.path)
			if err != nil {
				return nil, &net.OpError{Op: "dial", Net: "unix", Err: err}
			}
			return dialer.DialContext(ctx, network, target)
		}
	}
	return at.url, &http.Client{Transport: limitBodies{transport}}, nil
}

// parseAddr says where an address leads.
func parseAddr(addr string) (endpoint, error) {
	bad := func(why any) (endpoint, error) {
		if e := new(url.Error); asURLError(why, &e) {
			why = e.Err // the whole has the address, and with it a password
		}
		return endpoint{}, fmt.Errorf("IPFS API address %q: %v; use the path of a socket or of Kubo's repository, auto, /ip4/127.0.0.1/tcp/5001 or a URL", redact(addr), why)
	}
	local := func(path string) (endpoint, error) { return endpoint{"http://unix", path}, nil }
	switch {
	case addr == "":
		return bad("it is empty")
	case addr == Auto:
		path, err := defaultRepo()
		if err != nil {
			return bad(err)
		}
		return local(path)
	case strings.HasPrefix(addr, "http://"), strings.HasPrefix(addr, "https://"):
		u, err := url.Parse(addr)
		if err != nil {
			return bad(err)
		}
		if u.Host == "" {
			return bad("it names no host")
		}
		return endpoint{url: strings.TrimSuffix(addr, "/")}, nil
	case strings.HasPrefix(addr, "/unix/"):
		return local(strings.TrimPrefix(addr, "/unix"))
	case strings.HasPrefix(addr, "unix://"):
		return local(strings.TrimPrefix(addr, "unix://"))
	case strings.HasPrefix(addr, "/ip4/"), strings.HasPrefix(addr, "/ip6/"), strings.HasPrefix(addr, "/dns"):
		host, tls, err := parseMultiaddr(addr)
		if err != nil {
			return bad(err)
		}
		return endpoint{url: scheme(tls) + host}, nil
	case strings.HasPrefix(addr, "/"), strings.HasPrefix(addr, "."):
		return local(addr)
	}
	if _, err := url.Parse("http://" + addr); err != nil || strings.Contains(addr, "/") {
		return bad(cmp.Or(err, errNoHostPort))
	}
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" {
		return bad(cmp.Or(err, errNoHostPort))
	}
	return endpoint{url: "http://" + addr}, nil
}

// defaultRepo is where Kubo has its repository if nobody says otherwise.
func defaultRepo() (string, error) {
	if dir := os.Getenv("IPFS_PATH"); dir != "" {
		return filepath.Abs(dir)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("neither IPFS_PATH nor HOME says where Kubo's repository is: %w", err)
	}
	return filepath.Join(home, ".ipfs"), nil
}

// locate finds out what to dial for a path. It is asked anew for each connection: a Kubo that
// is started again may listen elsewhere.
func locate(path string) (network, addr string, err error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, apiFile)
		info, err = os.Stat(path)
	}
	if err != nil {
		return "", "", err
	}
	if !info.Mode().IsRegular() {
		return "unix", path, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return "", "", err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxAPIFile))
	if err != nil {
		return "", "", err
	}
	return parseAPIFile(path, strings.TrimSpace(string(text)))
}

// parseAPIFile understands what Kubo writes into apiFile: a multiaddr.
func parseAPIFile(path, text string) (network, addr string, err error) {
	if socket, ok := strings.CutPrefix(text, "/unix/"); ok {
		return "unix", "/" + socket, nil
	}
	host, tls, err := parseMultiaddr(text)
	if err == nil && tls {
		err = errors.New("it is for TLS: give the address as a URL")
	}
	if err != nil {
		return "", "", fmt.Errorf("address %q in %s: %w", text, path, err)
	}
	return "tcp", host, nil
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

// parseMultiaddr returns the host and port of a TCP address, and whether it is for TLS.
func parseMultiaddr(addr string) (host string, tls bool, err error) {
	m, err := ma.NewMultiaddr(addr)
	if err != nil {
		return "", false, err
	}
	network, host, err := manet.DialArgs(m)
	if err != nil {
		return "", false, err
	}
	if !strings.HasPrefix(network, "tcp") {
		return "", false, errors.New("it is no TCP address")
	}
	for _, p := range m.Protocols() {
		tls = tls || p.Code == ma.P_HTTPS || p.Code == ma.P_TLS
	}
	return host, tls, nil
}

func scheme(tls bool) string {
	if tls {
		return "https://"
	}
	return "http://"
}

// repeatable says of a request that it can be sent twice, as all of ours can: then net/http sends
// one without a body again, if its connection was closed while nobody used it. Others
// Client.patiently repeats. The header with no values is not sent (net/http, Transport).
func repeatable(req *http.Request) *http.Request {
	req = req.Clone(req.Context())
	req.Header["Idempotency-Key"] = nil
	return req
}

// limitBodies bounds all responses: the RPC client reads some of them to their end,
// whatever the status.
type limitBodies struct{ *http.Transport }

func (l limitBodies) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.Transport.RoundTrip(repeatable(req))
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
	case strings.HasSuffix(req.URL.Path, "/pin/add"):
		limit = maxPinAdd
	case strings.HasSuffix(req.URL.Path, "/swarm/peers"):
		limit = maxPeersReply
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
		return fmt.Errorf("%s: IPFS API at %s: %w: %w; %s", what, c.addr, ErrNoDaemon, err, c.opts.Help)
	case brokenOff(err):
		return fmt.Errorf("%s: IPFS API at %s: %w: %w", what, c.addr, errBrokenOff, err)
	}
	return fmt.Errorf("%s: IPFS API at %s: %w", what, c.addr, err)
}

func noDaemon(err error) bool {
	var op *net.OpError
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) ||
		errors.As(err, &op) && op.Op == "dial"
}

// brokenOff says whether a daemon that had taken a request went away before its answer was
// complete. A Kubo that is stopped ends its requests by cancelling them.
func brokenOff(err error) bool {
	for _, how := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, how) {
			return true
		}
	}
	return strings.HasSuffix(err.Error(), context.Canceled.Error()) || strings.HasSuffix(err.Error(), closedIdle)
}

// closedIdle is how net/http says that a daemon closed a connection just when a request was to
// be sent over it. The error has no other name.
const closedIdle = "http: server closed idle connection"

// isNotFound knows the message of daemons that do not have a block.
func isNotFound(err error) bool { return strings.Contains(err.Error(), notFoundMessage) }
