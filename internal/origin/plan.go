package origin

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/opencontainers/go-digest"
)

const (
	// maxGap is how much is read in vain rather than with another request.
	maxGap = 128 << 10
	// maxRange is how much one request reads: what it reads comes one after the other.
	maxRange = 4 << 20
)

// A read is one request: frames of a seed one after the other, or a blob that is a block.
type read struct {
	places []Place
	blob   digest.Digest

	seed   *opened     // nil for a block
	table  *seed.Table // as it was when this was planned
	frames []frameRead
	block  cid.Cid
}

// A frameRead is a frame, and what is wanted of it. A frame in a gap has nothing.
type frameRead struct {
	number int
	wanted []wantedBlock
}

type wantedBlock struct {
	cid   cid.Cid
	place seed.Place
}

// size is how many bytes of it are wanted.
func (fr frameRead) size() (bytes int) {
	for _, w := range fr.wanted {
		bytes += w.place.To - w.place.From
	}
	return bytes
}

// knows says whether one of the blocks may be had.
func (o *Origin) knows(cids []cid.Cid) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range cids {
		if o.blobLocked(c) != nil || len(o.index.find(c)) > 0 {
			return true
		}
	}
	for _, s := range o.seeds {
		if s.table == nil && len(s.placesLocked(o)) > 0 {
			return true
		}
	}
	return false
}

// tried is what was read already for a fetch: blocks in seeds, and with no seed as blobs.
type tried map[triedBlock]bool

type triedBlock struct {
	seed *opened
	cid  cid.Cid
}

func (t tried) note(r *read) {
	if r.seed == nil {
		t[triedBlock{nil, r.block}] = true
	}
	for _, fr := range r.frames {
		for _, w := range fr.wanted {
			t[triedBlock{r.seed, w.cid}] = true
		}
	}
}

// plan looks up where blocks lie, and reads the tables that are not here if any of them is in none that is. The error
// says why one could not be read.
func (o *Origin) plan(ctx context.Context, cids []cid.Cid, but tried) ([]*read, error) {
	found := map[*opened]*hit{}
	blobs, rest := o.lookup(cids, found, but, false)
	var failed error
	if len(rest) > 0 {
		failed = o.openSeeds(ctx, rest)
		more, _ := o.lookup(rest, found, but, true)
		blobs = append(blobs, more...)
	}
	var reads []*read
	size := o.pace.rangeOf(ipfs.RankOf(ctx))
	for s, h := range found {
		reads = append(reads, s.ranges(h, size)...)
	}
	first := make(map[cid.Cid]int, len(cids))
	for i, c := range slices.Backward(cids) {
		first[c] = i
	}
	slices.SortFunc(reads, func(a, b *read) int {
		return cmp.Compare(first[a.frames[0].wanted[0].cid], first[b.frames[0].wanted[0].cid])
	})
	return append(blobs, reads...), failed
}

// lookup finds what is in tables that are here, and in blobs of its own: layer roots only if said so, since seeds have
// them, too. What several seeds have is read from that
// which has most of all that is wanted, so that it is read together.
func (o *Origin) lookup(cids []cid.Cid, found map[*opened]*hit, but tried, roots bool) (blobs []*read, rest []cid.Cid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	hits := map[*opened]map[cid.Cid][]seed.Place{}
	for _, c := range cids {
		for _, at := range o.index.find(c) {
			if but[triedBlock{at.opened, c}] {
				continue
			}
			if hits[at.opened] == nil {
				hits[at.opened] = map[cid.Cid][]seed.Place{}
			}
			hits[at.opened][c] = append(hits[at.opened][c], at.Place)
		}
	}
	seeds := slices.SortedFunc(maps.Keys(hits), func(a, b *opened) int {
		return cmp.Or(cmp.Compare(len(hits[b]), len(hits[a])), cmp.Compare(a.Digest, b.Digest))
	})
	for _, c := range cids {
		i := slices.IndexFunc(seeds, func(s *opened) bool { return len(hits[s][c]) > 0 })
		if i < 0 {
			if r := o.blobLocked(c); r != nil && (roots || !isRoot(c)) && !but[triedBlock{nil, c}] {
				blobs = append(blobs, r)
			} else {
				rest = append(rest, c)
			}
			continue
		}
		s := seeds[i]
		if found[s] == nil {
			o.useLocked(s)
			found[s] = &hit{table: s.table, places: s.placesLocked(o), frames: map[int][]wantedBlock{}}
		}
		frames := found[s].frames
		for _, p := range hits[s][c] {
			frames[p.Frame] = append(frames[p.Frame], wantedBlock{c, p})
		}
	}
	return blobs, rest
}

// isRoot says whether a block that is a blob is a layer root.
func isRoot(c cid.Cid) bool { return c.Type() == cid.DagProtobuf }

// blobLocked returns how to read a block that is a blob of an image: the layer root, image record or
// profile.
func (o *Origin) blobLocked(c cid.Cid) *read {
	for _, im := range o.images {
		if _, ok := im.blobs[c]; !ok {
			continue
		}
		places := im.placesLocked(o)
		if len(places) == 0 {
			continue
		}
		d, err := mediatype.BlobDigest(c)
		if err != nil {
			d, err = mediatype.LayerDigest(c)
		}
		if err == nil {
			return &read{places: places, blob: d, block: c}
		}
	}
	return nil
}

// openSeeds reads tables that are not here, of one image after the other, that used last first, and of each those of its layers
// first, until all blocks are in one. The error says why some could not be read.
func (o *Origin) openSeeds(ctx context.Context, cids []cid.Cid) error {
	var errs []error
images:
	for _, im := range o.lately() {
		for _, seeds := range [][]*opened{im.seeds[:im.own], im.seeds[im.own:]} {
			errs = append(errs, o.openAll(ctx, seeds))
			if ctx.Err() != nil || o.indexed(cids) {
				break images
			}
		}
	}
	err := errors.Join(errs...)
	if err != nil && ctx.Err() == nil {
		o.log.Info("the seed of a layer is of no use", "err", err)
	}
	return err
}

// lately returns the images of which tables are not here, that used last first.
func (o *Origin) lately() []*image {
	o.mu.Lock()
	defer o.mu.Unlock()
	images := make([]*image, 0, len(o.images))
	for _, im := range o.images {
		if len(o.closedLocked(im.seeds)) > 0 {
			images = append(images, im)
		}
	}
	slices.SortFunc(images, func(a, b *image) int { return cmp.Compare(b.used, a.used) })
	return images
}

// closedLocked returns those seeds whose tables are not here and may be had. It is called with Origin.mu.
func (o *Origin) closedLocked(seeds []*opened) (closed []*opened) {
	for _, s := range seeds {
		if s.table == nil && len(s.placesLocked(o)) > 0 {
			closed = append(closed, s)
		}
	}
	return closed
}

// openAll reads the tables of seeds.
func (o *Origin) openAll(ctx context.Context, seeds []*opened) error {
	o.mu.Lock()
	closed := o.closedLocked(seeds)
	o.mu.Unlock()
	var group errgroup.Group
	group.SetLimit(maxRequests)
	errs := make([]error, len(closed))
	for i, s := range closed {
		group.Go(func() error {
			errs[i] = o.open(ctx, s)
			return nil
		})
	}
	return errors.Join(append(errs, group.Wait())...)
}

// indexed says whether all blocks are in tables that are here.
func (o *Origin) indexed(cids []cid.Cid) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(cids, func(c cid.Cid) bool { return len(o.index.find(c)) == 0 })
}

// hit is what is wanted of a seed.
type hit struct {
	table  *seed.Table
	places []Place
	frames map[int][]wantedBlock
}

// ranges puts frames of a seed together to requests of at most so many bytes, if one frame has no more.
func (s *opened) ranges(h *hit, most int64) (reads []*read) {
	frames := h.frames
	numbers := make([]int, 0, len(frames))
	for n := range frames {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	all := h.table.Frames
	var r *read
	for _, n := range numbers {
		if r != nil {
			first, last := r.frames[0].number, r.frames[len(r.frames)-1].number
			gap := all[n].Off - all[last].Off - int64(all[last].Len)
			if size := all[n].Off + int64(all[n].Len) - all[first].Off; gap <= maxGap && size <= most {
				for between := last + 1; between < n; between++ {
					r.frames = append(r.frames, frameRead{number: between})
				}
				r.frames = append(r.frames, frameRead{n, frames[n]})
				continue
			}
		}
		r = &read{places: h.places, blob: s.Digest, seed: s, table: h.table, frames: []frameRead{{n, frames[n]}}}
		reads = append(reads, r)
	}
	return reads
}
