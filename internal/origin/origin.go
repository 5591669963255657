// Package origin reads blocks of layers from where their image is kept: the seeds (package seed) in its registry, in
// another place of the same form, or in a folder.
//
// An Origin is told of images (Located, Recorded). What is asked for is looked up in the tables of their
// seeds, of which each is read once, with all that the layer is mounted by, in one request. Blocks that
// lie near each other are read in one request, frames in the order in which they are wanted first; a few requests
// are under way at once. A frame that was read is kept for a while, compressed as it came: who reads one
// small file next to another finds it there. Of a blob that several places have, the first place is asked, and
// the next for what that does not give.
//
// Nothing that comes is believed: each block is hashed.
//
// All methods may be called concurrently. A Fetch waits for what it starts. What several ask for at the same
// time is asked for once (seeds' tables), or twice (frames): the fetcher above asks for no leaf twice.
package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// maxImages bounds the images that are remembered, and maxPlaces the places of each.
	maxImages = 1024
	maxPlaces = 8
	// maxRequests bounds the requests under way.
	maxRequests = 12
	// maxBlob bounds blobs that are one block.
	maxBlob = ipfs.MaxBlock
)

var (
	// ErrNone says that no place that is known has a block.
	ErrNone = errors.New("no registry that is known has the block")
	// ErrAway says that a place does not answer, or not as it should, and may do so later.
	ErrAway = errors.New("it may answer later")
)

// A Place has blobs.
type Place interface {
	// Range reads n bytes of a blob from off, or all of it if n is negative. The caller closes what it returns,
	// and reads no more than it needs. The error is ErrAway, wrapped, if it is worth asking again.
	Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error)
	fmt.Stringer // for messages
}

// Options configure an Origin.
type Options struct {
	// Repository returns the place that a repository is, as HOST/NAME; nil: none is asked.
	Repository func(name string) (Place, error)
	// Always are asked before the repositories of any image.
	Always []Place
	Logger *slog.Logger // default: discard
}

// An Origin reads blocks.
type Origin struct {
	opts  Options
	codec *seed.Codec
	slots *semaphore.Weighted
	log   *slog.Logger

	mu     sync.Mutex
	images map[cid.Cid]*image // by the CID of their record
	order  []cid.Cid          // of images, the oldest first
	places map[string]Place   // repositories, by name
	seeds  map[layer.Seed]*opened
	frames frameCache
	more   chan struct{} // closed when more is known
}

// An image is what is known of one. Origin.mu guards it.
type image struct {
	places []Place
	seeds  []*opened
	blobs  map[cid.Cid]struct{} // blocks that are blobs of their own
}

// New returns an Origin that knows no image.
func New(opts Options) (*Origin, error) {
	codec, err := seed.NewCodec()
	if err != nil {
		return nil, err
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Origin{
		opts: opts, codec: codec, slots: semaphore.NewWeighted(maxRequests), log: opts.Logger,
		images: map[cid.Cid]*image{}, places: map[string]Place{}, seeds: map[layer.Seed]*opened{}, frames: newFrameCache(), more: make(chan struct{}),
	}, nil
}

// Located says which repositories have an image, and its record, as HOST/NAME. It may be said again.
func (o *Origin) Located(record cid.Cid, repositories ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	im := o.imageLocked(record)
	for _, name := range repositories {
		if name == "" || o.opts.Repository == nil {
			continue
		}
		p := o.places[name]
		if p == nil {
			var err error
			if p, err = o.opts.Repository(name); err != nil {
				o.log.Info("an image names a repository that is none", "repository", name, "err", err)
				continue
			}
			o.places[name] = p
		}
		if !slices.Contains(im.places, p) && len(im.places) < maxPlaces {
			im.places = append(im.places, p)
		}
	}
	o.learntLocked()
}

// learntLocked tells those who wait that more is known.
func (o *Origin) learntLocked() {
	close(o.more)
	o.more = make(chan struct{})
}

// learns returns a channel that is closed when more is known.
func (o *Origin) learns() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.more
}

// imageLocked returns the image with a record.
func (o *Origin) imageLocked(record cid.Cid) *image {
	im := o.images[record]
	if im != nil {
		return im
	}
	if len(o.order) >= maxImages {
		o.dropLocked(o.order[0])
		o.order = o.order[1:]
	}
	im = &image{places: slices.Clone(o.opts.Always), blobs: map[cid.Cid]struct{}{record: {}}}
	o.images[record], o.order = im, append(o.order, record)
	return im
}

func (o *Origin) dropLocked(record cid.Cid) {
	im := o.images[record]
	for _, s := range im.seeds {
		if delete(s.users, im); len(s.users) == 0 {
			delete(o.seeds, s.Seed)
		}
	}
	delete(o.images, record)
}

// Recorded says what the record of an image is.
func (o *Origin) Recorded(record cid.Cid, m *layer.Image) {
	o.Located(record, m.Origin)
	o.mu.Lock()
	defer o.mu.Unlock()
	im := o.imageLocked(record)
	if len(im.seeds) > 0 {
		return
	}
	if c, err := cid.Decode(m.Profile); err == nil {
		im.blobs[c] = struct{}{}
	}
	for _, l := range m.Layers {
		if root, err := mediatype.RootCid(l.Digest); err == nil {
			im.blobs[root] = struct{}{}
		}
		if l.Seed == nil || slices.ContainsFunc(im.seeds, func(s *opened) bool { return s.Seed == *l.Seed }) {
			continue
		}
		s := o.seeds[*l.Seed]
		if s == nil {
			s = newOpened(*l.Seed)
			o.seeds[s.Seed] = s
		}
		s.users[im] = struct{}{}
		im.seeds = append(im.seeds, s)
	}
	o.learntLocked()
}

// Get returns a block, as ipfs.Getter does.
func (o *Origin) Get(ctx context.Context, c cid.Cid) (data []byte, err error) {
	err = o.Fetch(ctx, []cid.Cid{c}, func(b ipfs.Block) error {
		data = b.Data
		return nil
	})
	return data, err
}

// Fetch implements ipfs.Fetcher. The error is ErrNone, wrapped, for blocks that no image has that it was told of.
func (o *Origin) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	f := &fetch{Origin: o, fn: fn, wanted: make(map[cid.Cid]struct{}, len(cids))}
	for _, c := range cids {
		f.wanted[c] = struct{}{}
	}
	// What a seed does not give, though it says so, another may.
	tried := tried{}
	for {
		reads, err := o.plan(ctx, f.rest(cids), tried)
		if err != nil {
			f.failLocked(err)
		}
		group, gctx := errgroup.WithContext(ctx)
		again := false
		for _, r := range reads {
			group.Go(func() error { return f.read(gctx, r) })
			again = true
			tried.note(r)
		}
		if err := group.Wait(); err != nil {
			return err
		}
		if !again || ctx.Err() != nil || len(f.rest(cids)) == 0 {
			return f.missing(ctx)
		}
	}
}

// rest returns what did not come.
func (f *fetch) rest(cids []cid.Cid) (rest []cid.Cid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return among(f.wanted, cids)
}

// among returns those of a list that are in a set, in the order of the list.
func among(set map[cid.Cid]struct{}, list []cid.Cid) (in []cid.Cid) {
	for _, c := range list {
		if _, ok := set[c]; ok {
			in = append(in, c)
		}
	}
	return in
}

// A fetch is one call of Fetch.
type fetch struct {
	*Origin
	fn func(ipfs.Block) error

	mu     sync.Mutex
	wanted map[cid.Cid]struct{} // that did not come
	failed error                // why, the first of what was said
	away   bool                 // a place was away
	ended  error                // of fn
}

// deliver gives a block to whoever wants it, and says whether it is what its CID says. The error is that of fn.
func (f *fetch) deliver(c cid.Cid, data []byte, from string) (good bool, err error) {
	b, err := ipfs.VerifiedBlock(c, data)
	b.From = from
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.failLocked(err)
		return false, f.ended
	}
	if _, ok := f.wanted[c]; !ok || f.ended != nil {
		return true, f.ended
	}
	delete(f.wanted, c)
	f.ended = f.fn(b)
	return true, f.ended
}

func (f *fetch) failLocked(err error) {
	f.away = f.away || errors.Is(err, ErrAway)
	if f.failed == nil {
		f.failed = err
	}
}

// missing is the error of what did not come.
func (f *fetch) missing(ctx context.Context) error {
	if err := ctx.Err(); err != nil || len(f.wanted) == 0 {
		return err
	}
	if f.failed == nil {
		f.failed = ErrNone
	}
	if f.away && !errors.Is(f.failed, ErrAway) {
		f.failed = fmt.Errorf("%w; of another place: %w", f.failed, ErrAway)
	}
	for c := range f.wanted {
		return fmt.Errorf("block %s and %d more: %w: %w", c, len(f.wanted)-1, ipfs.ErrNotFound, f.failed)
	}
	return nil
}
