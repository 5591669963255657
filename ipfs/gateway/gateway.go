// Package gateway serves blocks over HTTP to whoever checks them: the trustless gateway of IPFS
// (https://specs.ipfs.tech/http-gateways/trustless-gateway/), read only.
//
//	GET /ipfs/CID?format=raw         one block
//	GET /ipfs/CID/a/b?format=car     the blocks of a path and of what it leads to, as a CARv1, with
//	                                 dag-scope=block|entity|all and entity-bytes=FROM:TO
//
// or with Accept: application/vnd.ipld.raw or application/vnd.ipld.car. Files as such, listings, names of IPNS and
// DNSLink are not served: what can be read without a check is only as trustworthy as who serves it.
//
// boxo's gateway does the work, on the blocks of a Source: what that cannot get is not found. Give it one
// without peers, and nobody has this node fetch anything. A browser's page of another origin gets no
// answer that its scripts can read (no CORS).
//
// # What strangers may cost
//
// A request has a path of at most MaxPath bytes and maxNames names, since boxo goes along it once for each
// name; maxRequests are answered at a time; who does not read for writeTimeout is hung up on; and of a CAR
// that only HEAD asks for, one block is read. A CAR that is being sent takes some 100 bytes of memory for
// each of its blocks: boxo remembers which it has sent.
//
// # Concurrency
//
// The handler may be used by any number of goroutines. It keeps none.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/ipfs/boxo/gateway"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
)

const (
	prefix = "/ipfs/"
	// MaxPath is how many bytes the path of a request may have.
	MaxPath      = 4096
	maxNames     = 64
	maxRequests  = 64
	maxDuration  = time.Hour
	writeTimeout = 30 * time.Second
)

// A Source is where the blocks come from.
type Source interface {
	ipfs.Getter
	ipfs.Fetcher
	ipfs.Local
}

// NewHandler returns the handler of /ipfs/; other paths are not found.
func NewHandler(src Source) (http.Handler, error) {
	backend, err := gateway.NewBlocksBackend(dag.BlockService(known{src}))
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return limits{src, gateway.NewHandler(gateway.Config{
		DisableHTMLErrors:     true,
		NoDNSLink:             true,
		DeprecatedXIpfsPath:   true, // IPIP-548 has taken it out, and suites still look for it
		MaxConcurrentRequests: maxRequests,
		MaxRequestDuration:    maxDuration,
		MetricsRegistry:       prometheus.NewRegistry(), // else it registers its own in the process's
	}, backend)}, nil
}

// known is a Source that does not have what it cannot check.
type known struct{ Source }

func (k known) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	if !isKnown(c) {
		return nil, fmt.Errorf("block %s: %w: its hash is not sha2-256", c, ipfs.ErrNotFound)
	}
	return k.Source.Get(ctx, c)
}

func isKnown(c cid.Cid) bool {
	p := c.Prefix()
	return p.MhType == mh.SHA2_256 && p.MhLength == 32
}

// limits refuses what is none of a trustless gateway's business, or costs too much, and says of what is
// not here that it is not: boxo would begin a CAR of it.
type limits struct {
	src  Source
	next http.Handler
}

func (l limits) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	names, ok := strings.CutPrefix(r.URL.Path, prefix)
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this gateway is read only", http.StatusMethodNotAllowed)
	case !ok:
		http.Error(w, "only paths below /ipfs/ are served here", http.StatusNotFound)
	case len(r.URL.Path) > MaxPath || strings.Count(names, "/") > maxNames:
		http.Error(w, fmt.Sprintf("a path may have %d bytes and %d names here", MaxPath, maxNames), http.StatusRequestURITooLong)
	case !l.has(r):
		http.Error(w, "not found: "+r.URL.Path+" is not on this node", http.StatusNotFound)
	default:
		l.next.ServeHTTP(&writer{ResponseWriter: w, control: http.NewResponseController(w), head: r.Method == http.MethodHead}, r)
	}
}

// has says whether the way to the end of a path, and the block there, are here. Of what else may be
// wrong with a path, the next handler says what.
func (l limits) has(r *http.Request) bool {
	root, names, err := dag.ParsePath(r.URL.Path)
	if err == nil && !isKnown(root) {
		return root.Prefix().MhType == mh.IDENTITY && len(names) == 0 // which holds itself what there is
	}
	if err == nil && len(names) > 0 && !dag.HasPaths(root) {
		return false
	}
	err = dag.Read(r.Context(), known{l.src}, func(ctx context.Context, reader *dag.Reader) error {
		c, err := reader.Resolve(ctx, r.URL.Path)
		if err != nil || c.Prefix().MhType == mh.IDENTITY {
			return err
		}
		here, err := l.src.Has(ctx, c)
		if err == nil && !here {
			err = ipfs.ErrNotFound
		}
		return err
	})
	return !errors.Is(err, ipfs.ErrNotFound)
}

// errHead ends the body of an answer to HEAD.
var errHead = errors.New("HEAD was asked for")

// A writer hangs up on clients that do not read.
type writer struct {
	http.ResponseWriter
	control *http.ResponseController
	head    bool
	begun   bool
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	w.begun = true
	w.extend()
	w.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	if w.head {
		if !w.begun {
			w.WriteHeader(http.StatusOK)
		}
		return 0, errHead
	}
	w.begun = true
	w.extend()
	return w.ResponseWriter.Write(p)
}

// extend gives the client time to read on.
func (w *writer) extend() {
	_ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // there is none in a recorder of httptest
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
