// Package mirror has images pulled from peers that are nowhere but in registries: containerd asks this mirror before the registry, by the digest of what it wants, and
// others that have it say which file it is.
//
//	GET, HEAD /mirror/v2/NAME/manifests/DIGEST?ns=HOST
//	GET, HEAD /mirror/v2/NAME/blobs/DIGEST?ns=HOST
//
// A mirror knows no tags: what a tag means only the registry says. So nothing that it answers with has to be trusted, and it answers with nothing else: a blob is
// fetched, verified block by block, hashed as it comes, and served when its digest is right, with a first byte that comes after the last one was verified. Whoever said it was something
// else is counted as one who sends wrong blocks. If nobody has it, or if it does not come, the answer is 404, and containerd asks the registry.
//
// # What others get
//
// Peers are told of the blobs of this machine's content store, in turn (Lookup). With SharePublic, which is the default, of those that anybody gets from the registry: the mirror notes
// where containerd asks for what it had to refuse, and when that is committed it has some bytes of it from there without credentials, from a random place, which have to be those of the blob;
// of a manifest it asks whether it is there, and has some bytes of its config in the same way. What came from peers is public as well. Blobs of one chunk have a block that anybody can name who knows their digest. Those that
// are not public are withheld from peers (Withheld), unless something else that is pinned has them.
//
// # Concurrency
//
// Each request is answered in its goroutine. One more for each blob that is fetched lives as long as somebody waits for it, and one in all finds out what is public; Close ends them.
package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
)

// Path is where the mirror is.
const Path = "/mirror"

const (
	// maxAsked is of how many blobs it is remembered where containerd got them, and maxFetched of how many that came from peers which file they are.
	maxAsked, maxFetched = 8192, 1024
	// keepFetched is how long it is kept what came from peers and was not committed to the content store.
	keepFetched = 10 * time.Minute
	// pinName is of no pin: what has it is freed, if nothing else needs it.
	pinName = "of the mirror"
	// maxKeys is of how many manifests others are told.
	maxKeys = 1024
)

// Share says which blobs others get.
type Share string

// What can be shared.
const (
	SharePublic Share = "public" // what anybody gets from its registry
	ShareAll    Share = "all"
	ShareNone   Share = "none"
)

// ErrShare is of what is none of these.
var ErrShare = errors.New(`one of "public", "all", "none"`)

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Share) UnmarshalText(text []byte) error {
	switch v := Share(text); v {
	case SharePublic, ShareAll, ShareNone:
		*s = v
		return nil
	}
	return fmt.Errorf("%.40q: %w", text, ErrShare)
}

// Content is the content store.
type Content interface {
	ctd.Provider
	Blob(d digest.Digest) (f ipfs.File, public bool, err error)
	Publish(d digest.Digest, public, manifest bool) error
	Manifests(all bool) []digest.Digest
	IsPrivate(c cid.Cid) bool
}

// Files has the files of blobs, and fetches them.
type Files interface {
	Load(ctx context.Context, root cid.Cid, size int64) (ipfs.File, error)
	ReadAt(ctx context.Context, f ipfs.File, p []byte, off int64) (int, error)
	Ensure(ctx context.Context, f ipfs.File) error
	Open(f ipfs.File) (*os.File, error)
	// Drop has what nothing needs freed, soon.
	Drop(pin ipfs.Pin)
	// IsDropped says whether a file is being freed.
	IsDropped(root cid.Cid) bool
}

// Peers knows who has what.
type Peers interface {
	FindBlob(ctx context.Context, digest string, key cid.Cid, fn func(peer string, f ipfs.File) (enough bool))
	// Lied says that a peer said what is not so, and Broke that it did not give what it said it has.
	Lied(ctx context.Context, peer string, err error)
	Broke(peer string)
}

// A Public is a repository, as who has no credentials sees it.
type Public interface {
	Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error)
	HasManifest(ctx context.Context, d digest.Digest) (bool, error)
}

// Options say what a Mirror works on.
type Options struct {
	// Public returns a repository by its name, HOST/NAME.
	Public func(name string) (Public, error)
	// Needs says whether something that is pinned needs a block, besides the content store.
	Needs  func(c cid.Cid) (bool, error)
	Share  Share        // default SharePublic
	Logger *slog.Logger // default: discard
}

// A source is where a blob came from.
type source struct {
	repository string // HOST/NAME; empty if that is not known
	manifest   bool
	peers      bool // it came from peers
}

// below is what a Mirror works on.
type below struct {
	content Content
	files   Files
	peers   Peers // nil: there are none
}

// A Mirror is an http.Handler. Before Use it has nothing, and tells nobody of anything.
type Mirror struct {
	Options
	fetched *lru.Cache[digest.Digest, ipfs.File] // that were verified
	asked   *lru.Cache[digest.Digest, source]
	needs   *lru.Cache[cid.Cid, needed]
	walk    sync.Mutex // held while it is found out what is needed
	wake    chan struct{}
	below   atomic.Pointer[below]

	mu      sync.Mutex // guards what follows
	stop    context.CancelFunc
	flights map[digest.Digest]*flight
	checks  []check
	kept    []kept
	closed  bool
	wg      sync.WaitGroup
}

// kept is a file that came from peers.
type kept struct {
	root  cid.Cid
	since time.Time
}

// New returns a Mirror, which ends with Close.
func New(opts Options) (*Mirror, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Share == "" {
		opts.Share = SharePublic
	}
	m := &Mirror{Options: opts, wake: make(chan struct{}, 1), flights: map[digest.Digest]*flight{}}
	var errs [3]error
	m.fetched, errs[0] = lru.New[digest.Digest, ipfs.File](maxFetched)
	m.asked, errs[1] = lru.New[digest.Digest, source](maxAsked)
	m.needs, errs[2] = lru.New[cid.Cid, needed](maxFetched)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return m, nil
}

// Use gives it the content store, whose Options.Committed is Committed, the files of blobs, and the peers: nil if there are none.
func (m *Mirror) Use(content Content, files Files, peers Peers) {
	ctx, stop := context.WithCancel(context.Background())
	m.below.Store(&below{content, files, peers})
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop = stop
	m.wg.Go(func() { m.run(ctx) })
}

// Close ends what is under way, and waits for it.
func (m *Mirror) Close() error {
	m.mu.Lock()
	m.closed = true
	if m.stop != nil {
		m.stop()
	}
	for _, fl := range m.flights {
		fl.cancel()
	}
	m.mu.Unlock()
	m.wg.Wait()
	m.dropKept(time.Now())
	return nil
}

// dropKept lets go what came from peers before a time. What was committed since the content store keeps.
func (m *Mirror) dropKept(before time.Time) {
	m.mu.Lock()
	var old []kept
	for len(m.kept) > 0 && m.kept[0].since.Before(before) {
		old, m.kept = append(old, m.kept[0]), m.kept[1:]
	}
	m.mu.Unlock()
	for _, k := range old {
		m.below.Load().files.Drop(ipfs.Pin{Root: k.root, Name: pinName})
	}
}

// own returns a blob of this machine that others may have.
func (m *Mirror) own(d digest.Digest) (ipfs.File, bool) {
	b := m.below.Load()
	if b == nil || m.Share == ShareNone {
		return ipfs.File{}, false
	}
	f, public, err := b.content.Blob(d)
	return f, err == nil && (public || m.Share == ShareAll)
}
