// Package origin reads blocks of layers from where their image is kept: the seeds (package seed) in its registry, in
// another place of the same form, or in a folder.
//
// An Origin is told of images (Located, Claimed, Recorded). What is asked for is looked up in the tables of their
// seeds, of which each is read once, with all that the layer is mounted by, in one request. Blocks that
// lie near each other are read in one request, frames in the order in which they are wanted first; a few requests
// are under way at once. A frame that was read is kept for a while, compressed as it came: who reads one
// small file next to another finds it there. Of a blob that several places have, the first place is asked, and
// the next for what that does not give.
//
// Nothing that comes is believed: each block is hashed.
//
// All methods may be called concurrently. A Fetch waits for what it starts, but for what lies around that (around.go), which Close ends. What several ask for at the same
// time is asked for once (seeds' tables), or twice (frames): the fetcher above asks for no leaf twice.
package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

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
	// maxImages bounds the images that are remembered, and maxPlaces the places of each that are told of in one way.
	maxImages = 1024
	maxPlaces = 8
	// maxRequests bounds the requests under way, and maxSpare those among them that nobody waits for.
	maxRequests, maxSpare = 12, 6
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
	// Repository returns the place that a repository is, as HOST/NAME, or nil if it is not to be asked. If it is only claimed, nobody
	// but the image said so. nil: none is asked.
	Repository func(name string, claimed bool) (Place, error)
	// Always are asked before the repositories of any image.
	Always []Place
	Logger *slog.Logger // default: discard
}

// An Origin reads blocks.
type Origin struct {
	opts  Options
	codec *seed.Codec
	slots *semaphore.Weighted
	spare *semaphore.Weighted // of the slots, for what nobody waits for
	log   *slog.Logger

	mu     sync.Mutex
	images map[cid.Cid]*image  // by the CID of their record
	uses   int64               // counts them, to know which image was not used for longest
	places map[claim]Place     // repositories
	ill    map[Place]time.Time // until when those that have failed are asked last
	seeds  map[layer.Seed]*opened
	index  index
	frames frameCache // as they came
	blocks frameCache // decompressed
	pace   pace
	meter  meter
	counts counts
	failed failure
	more   chan struct{} // closed when more is known
	around surroundings
	// together says whether others get something at the same time, who share the registry's link.
	together func() bool
}

// A claim is the name of a repository, and whether only the image says that it has it.
type claim struct {
	name  string
	alone bool
}

// An image is what is known of one. Origin.mu guards it.
type image struct {
	record          cid.Cid
	always          []Place
	located, claims []Place
	seeds           []*opened
	own             int                  // how many of these are of its layers: they come first, and others are of other images
	blobs           map[cid.Cid]struct{} // blocks that are blobs of their own
	used            int64
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
		opts: opts, codec: codec, slots: semaphore.NewWeighted(maxRequests), spare: semaphore.NewWeighted(maxSpare), log: opts.Logger,
		images: map[cid.Cid]*image{}, places: map[claim]Place{}, ill: map[Place]time.Time{}, seeds: map[layer.Seed]*opened{}, index: newIndex(maxIndexed), frames: newFrameCache(maxFrames), blocks: newFrameCache(maxBlocks), more: make(chan struct{}),
		around: newSurroundings(), together: func() bool { return false },
	}, nil
}

// Located says which repositories have an image, and its record, as HOST/NAME: whoever says so knows it. It may be said again.
func (o *Origin) Located(record cid.Cid, repositories ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	im := o.imageLocked(record)
	im.located = o.placesLocked(im.located, repositories, false)
	o.learntLocked()
}

// Claimed is Located where nobody but the image itself says so, which may come from anybody.
func (o *Origin) Claimed(record cid.Cid, repositories ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	im := o.imageLocked(record)
	im.claims = o.placesLocked(im.claims, repositories, true)
	o.learntLocked()
}

// placesLocked adds repositories to a list.
func (o *Origin) placesLocked(list []Place, repositories []string, claimed bool) []Place {
	for _, name := range repositories {
		if name == "" || o.opts.Repository == nil || len(list) >= maxPlaces {
			continue
		}
		key := claim{name, claimed}
		p := o.places[key]
		if p == nil {
			var err error
			if p, err = o.opts.Repository(name, claimed); err != nil {
				o.log.Info("an image names a repository that is not asked", "repository", name, "err", err)
			}
			if p == nil || err != nil {
				continue
			}
			o.places[key] = p
		}
		if !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	return list
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
	if im == nil {
		if len(o.images) >= maxImages {
			o.dropOldestLocked()
		}
		im = &image{record: record, always: o.opts.Always, blobs: map[cid.Cid]struct{}{record: {}}}
		o.images[record] = im
	}
	o.uses++
	im.used = o.uses
	return im
}

// dropOldestLocked forgets the image that was not used for longest, and the repositories that no other is in.
func (o *Origin) dropOldestLocked() {
	var oldest *image
	for _, im := range o.images {
		if oldest == nil || im.used < oldest.used {
			oldest = im
		}
	}
	for _, s := range oldest.seeds {
		if delete(s.users, oldest); len(s.users) == 0 {
			o.index.drop(s)
			delete(o.seeds, s.Seed)
		}
	}
	delete(o.images, oldest.record)
	inUse := map[Place]struct{}{}
	for _, im := range o.images {
		for _, p := range im.places() {
			inUse[p] = struct{}{}
		}
	}
	maps.DeleteFunc(o.places, func(_ claim, p Place) bool {
		_, ok := inUse[p]
		if !ok {
			delete(o.ill, p)
		}
		return !ok
	})
}

// useLocked notes that a seed is used, and its images are.
func (o *Origin) useLocked(s *opened) {
	o.index.use(s)
	o.uses++
	for im := range s.users {
		im.used = o.uses
	}
}

// Recorded says what the record of an image is.
func (o *Origin) Recorded(record cid.Cid, m *layer.Image) {
	o.Claimed(record, m.Origin)
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
	}
	im.own = len((&layer.Image{Layers: m.Layers}).AllSeeds())
	for _, one := range m.AllSeeds() {
		s := o.seeds[one]
		if s == nil {
			s = newOpened(one)
			o.seeds[one] = s
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
	return o.fetch(ctx, cids, fn, nil, nil)
}

// fetch is Fetch, but for frames that are another's by the time it is their turn: these are no error. nil says that all are this node's. still
// returns which of some blocks have not come from elsewhere by then; nil: all.
func (o *Origin) fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error, own func() owners, still func([]cid.Cid) []cid.Cid) error {
	f := &fetch{Origin: o, fn: fn, own: own, still: still, wanted: make(map[cid.Cid]struct{}, len(cids))}
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
		if own != nil {
			if f.failed != nil {
				o.failed.note(f.failed)
			}
			return f.failed
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
	fn    func(ipfs.Block) error
	own   func() owners // who has which frames to read now; nil: this node has all
	still func([]cid.Cid) []cid.Cid

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
	} else {
		f.Origin.failed.note(f.failed)
	}
	if f.away && !errors.Is(f.failed, ErrAway) {
		f.failed = fmt.Errorf("%w; of another place: %w", f.failed, ErrAway)
	}
	for c := range f.wanted {
		return fmt.Errorf("block %s and %d more: %w: %w", c, len(f.wanted)-1, ipfs.ErrNotFound, f.failed)
	}
	return nil
}
