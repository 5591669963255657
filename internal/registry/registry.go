// Package registry answers as a read-only OCI registry (distribution specification 1.1, "Pull")
// for images that are on IPFS: what containerd pulls as HOST/ipfs/CID comes from this node, or
// from its peers.
//
//	HOST/ipfs/CID:latest           the image whose directory, or manifest, has this CID
//	HOST/ipfs/CID@sha256:…         a manifest of it
//	HOST/ipfs@sha256:…             the image whose manifest has this digest
//
// Package imagedir reads the images. A name gives what belongs to the image that it names, and
// nothing else that the node has. In the repository "ipfs" itself a blob does so if a manifest
// that was asked for shortly before names it.
//
// Whoever can connect can make the node ask its peers for any block. So every answer is one
// block, which was verified before a byte of it is sent; what turns out to be no image is not
// stored; at most maxFetching requests wait for peers, each for Options.Timeout at most, others
// queue behind them; and there are at most maxConns connections. What is on this node is served
// without that queue.
//
// # Concurrency
//
// Each request is answered in the goroutine that net/http gives it. The package starts none.
package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/net/netutil"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// maxFetching is how many requests may wait for peers at a time.
	maxFetching = 32
	// maxConns is how many connections there are; containerd has some for each pull.
	maxConns = 128
	// maxChildren is how many manifests of an index are looked at when it is asked for by
	// nothing but its digest.
	maxChildren = 64
	// maxNames is how many digests are remembered of them together.
	maxNames = 8192
	// Times that a client may take, or keep a connection for.
	headerTimeout = 10 * time.Second
	idleTimeout   = 20 * time.Second
	writeTimeout  = 30 * time.Second
)

// A Node is what the registry needs of an IPFS node. Cache stores blocks that came from peers,
// and that need not stay.
type Node interface {
	ipfs.Fetcher
	ipfs.Local
	Cache(ctx context.Context, blocks ...ipfs.Block) error
}

// Options say how requests are answered.
type Options struct {
	Timeout time.Duration // that a request may wait for peers; default 30 s
	Logger  *slog.Logger  // default: discard
	// Withheld says which blocks are not to be read here; nil: none. Served is told of each blob that was.
	Withheld func(cid.Cid) bool
	Served   func(d digest.Digest, manifest bool)
	// Below are other handlers, by the paths that they are below, which they do not see.
	Below map[string]http.Handler
}

func (o Options) withDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Withheld == nil {
		o.Withheld = func(cid.Cid) bool { return false }
	}
	if o.Served == nil {
		o.Served = func(digest.Digest, bool) {}
	}
	return o
}

// NewServer returns a server with the handler, and with limits for clients that are slow or many.
// It is to be given the listener that Listener returns.
func NewServer(node Node, opts Options) *http.Server {
	opts = opts.withDefaults()
	mux := http.NewServeMux()
	mux.Handle("/", NewHandler(node, opts))
	for path, h := range opts.Below {
		mux.Handle(path+"/", http.StripPrefix(path, h))
	}
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout, IdleTimeout: idleTimeout,
		WriteTimeout:   opts.Timeout + writeTimeout,
		MaxHeaderBytes: 16 << 10,
		ErrorLog:       slog.NewLogLogger(opts.Logger.Handler(), slog.LevelDebug),
	}
}

// Listener bounds the connections of a listener.
func Listener(l net.Listener) net.Listener { return netutil.LimitListener(l, maxConns) }

// A handler answers requests.
type handler struct {
	node    Node
	timeout time.Duration
	log     *slog.Logger
	opts    Options
	slots   chan struct{} // an element for each request that waits for peers
	recent  recent
}

// NewHandler returns the registry.
func NewHandler(node Node, opts Options) http.Handler {
	opts = opts.withDefaults()
	return &handler{node: node, timeout: opts.Timeout, log: opts.Logger, opts: opts, slots: make(chan struct{}, maxFetching)}
}

// An answer is what is sent.
type answer struct {
	mediaType string
	digest    digest.Digest // empty for what has none
	data      []byte
	header    map[string]string // more of it
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff") // it is whatever an image says
	t, err := parsePath(r.URL.Path)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		err = fail(http.StatusMethodNotAllowed, codeUnsupported, "this registry is read-only: \"convert SOURCE ipfs:\" puts images on a node")
	}
	ctx, cancel := context.WithTimeout(r.Context(), h.timeout)
	defer cancel()
	var a *answer
	if err == nil {
		a, err = h.answer(ctx, t, r.URL.Query())
	}
	if err != nil {
		h.refuse(ctx, w, r, t.kind, err)
		return
	}
	h.log.Debug("registry", "method", r.Method, "path", r.URL.Path, "bytes", len(a.data))
	for name, value := range a.header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Type", a.mediaType)
	if a.digest != "" {
		h.opts.Served(a.digest, t.kind == kindManifest)
		w.Header().Set("Docker-Content-Digest", a.digest.String())
		w.Header().Set("ETag", strconv.Quote(a.digest.String()))
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.data))
}

// refuse answers with an error, and logs what went wrong.
func (h *handler) refuse(ctx context.Context, w http.ResponseWriter, r *http.Request, k kind, err error) {
	f := failed(ctx, k, err)
	level := slog.LevelDebug
	switch {
	case errors.Is(ctx.Err(), context.Canceled): // nobody reads it
	case f.status >= http.StatusInternalServerError, f.status == http.StatusTooManyRequests:
		level = slog.LevelWarn
	case errors.Is(err, ipfs.ErrNotFound):
		level = slog.LevelInfo
	}
	h.log.Log(ctx, level, "registry refuses", "method", r.Method, "path", r.URL.Path, "status", f.status, "err", err)
	f.write(w)
}

// answer finds what is asked for.
func (h *handler) answer(ctx context.Context, t target, query url.Values) (*answer, error) {
	switch t.kind {
	case kindBase:
		return asJSON("application/json", struct{}{})
	case kindReferrers:
		return noReferrers(query)
	}
	r := &reader{h: h}
	defer r.close()
	a, err := h.read(ctx, r, t, query)
	if err == nil {
		r.keep(ctx)
	}
	return a, err
}

// read reads what is asked for of an image.
func (h *handler) read(ctx context.Context, r *reader, t target, query url.Values) (*answer, error) {
	if !t.root.Defined() {
		return h.unnamed(ctx, r, t)
	}
	im, err := imagedir.Open(ctx, r, t.root)
	if err != nil {
		return nil, err
	}
	switch t.kind {
	case kindTags:
		return tags(t.name, im.Tags(), query)
	case kindBlob:
		data, err := im.Blob(ctx, t.digest)
		return blob(t.digest, data), err
	}
	if t.tag != "" {
		if t.digest, err = im.Tag(t.tag); err != nil {
			return nil, err
		}
	}
	m, err := im.Manifest(ctx, t.digest)
	if err != nil {
		return nil, err
	}
	return &answer{mediaType: m.MediaType, digest: t.digest, data: m.Data}, nil
}

// unnamed reads what is asked for by nothing but its digest.
func (h *handler) unnamed(ctx context.Context, r *reader, t target) (*answer, error) {
	if t.digest == "" {
		return nil, fail(http.StatusNotFound, t.kind.unknown(), "there are no tags here: images are ipfs/CID, or ipfs@sha256:…")
	}
	c, err := mediatype.BlobCid(t.digest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", imagedir.ErrUnknown, err)
	}
	if t.kind == kindBlob && !h.recent.has(t.digest) {
		return nil, fail(http.StatusNotFound, codeBlobUnknown, "blob %s: no manifest that was asked for lately names it: ask for that first, or use ipfs/CID", t.digest)
	}
	if t.kind == kindBlob {
		var data []byte
		err := r.Fetch(ctx, []cid.Cid{c}, func(b ipfs.Block) error {
			data = b.Data
			return nil
		})
		return blob(t.digest, data), err
	}
	im, err := imagedir.Open(ctx, r, c)
	if err != nil {
		return nil, err
	}
	m, err := im.Manifest(ctx, t.digest)
	if err != nil {
		return nil, err
	}
	if err := h.remember(ctx, im, t.digest, m); err != nil {
		return nil, err
	}
	return &answer{mediaType: m.MediaType, digest: t.digest, data: m.Data}, nil
}

// remember notes what a manifest names, and of an index also what those manifests name that are
// here: a client that has them already does not ask for them again.
func (h *handler) remember(ctx context.Context, im *imagedir.Image, d digest.Digest, m *imagedir.Manifest) error {
	names := m.Names()
	if m.IsIndex() {
		for _, child := range names[:min(len(names), maxChildren)] {
			if len(names) > maxNames {
				break
			}
			c, err := mediatype.BlobCid(child)
			if err != nil {
				continue // nobody can ask for it
			}
			here, err := h.node.Has(ctx, c)
			if err != nil {
				return err
			}
			if !here {
				continue
			}
			below, err := im.Manifest(ctx, child)
			if errors.Is(err, imagedir.ErrUnknown) {
				continue // no manifest
			}
			if err != nil {
				return err
			}
			names = append(names, below.Names()...)
		}
	}
	h.recent.add(d, names[:min(len(names), maxNames)])
	return nil
}

func blob(d digest.Digest, data []byte) *answer {
	return &answer{mediaType: "application/octet-stream", digest: d, data: data}
}

// noReferrers is the list of what refers to a manifest: nothing does that a CID leads to.
func noReferrers(query url.Values) (*answer, error) {
	a, err := asJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{},
	})
	if err == nil && query.Has("artifactType") {
		a.header = map[string]string{"OCI-Filters-Applied": "artifactType"}
	}
	return a, err
}

// tags is the list of tags, or the part of it that is asked for.
func tags(name string, all []string, query url.Values) (*answer, error) {
	if last := query.Get("last"); last != "" {
		all = slices.DeleteFunc(all, func(tag string) bool { return tag <= last })
	}
	var more map[string]string
	if text := query.Get("n"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return nil, fail(http.StatusBadRequest, codeUnsupported, "n is the most tags that are wanted, not %.40q", text)
		}
		if n < len(all) {
			all = all[:n]
			if n > 0 {
				next := url.Values{"n": {text}, "last": {all[n-1]}}
				more = map[string]string{"Link": fmt.Sprintf(`</v2/%s/tags/list?%s>; rel="next"`, name, next.Encode())}
			}
		}
	}
	a, err := asJSON("application/json", struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{name, append([]string{}, all...)})
	if err == nil {
		a.header = more
	}
	return a, err
}

func asJSON(mediaType string, v any) (*answer, error) {
	text, err := json.Marshal(v)
	return &answer{mediaType: mediaType, data: text}, err
}
