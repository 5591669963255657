// Package compare finds out what images share: layers, files and blocks, and what that saves.
//
// Every layer is read once: an ordinary one is converted, by package layer, into a node that keeps nothing of it but measures (meter), so that what is
// compared is what conversion would make, on all cores, and no block is stored. Of an ipcs layer only the index is read. What is known of an ordinary layer is kept in a Cache, by its digest.
//
// Then the layers are added up, one after the other (tally): everything that an image can have in common with another (a file, a block) has a set of the
// images that have it; sets are numbered, and a few hundred of them are enough for a million files. Reports are made of the amounts of each set.
//
// Concurrency. Compare reads several layers at a time, and waits for all of them; one adds at a time.
package compare

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/convert"
)

// maxWorkers is how many layers are read at a time, if nobody says how many.
const maxWorkers = 4

// maxFiles is how many of the largest files a report has.
const maxFiles = 25

// erofsEntry is about what an entry takes in the metadata of a mounted image.
const erofsEntry = 96

// Options say what is compared.
type Options struct {
	Refs []string
	// Open opens a source. It is closed at the end.
	Open func(ctx context.Context, ref string) (convert.Source, error)
	// Node opens the node that has ipcs images, when there is one. It is called once; whoever gave it closes the node.
	Node func(ctx context.Context) (convert.Node, error)
	// Platforms are those of indexes; empty: that of this host. Each that is named is an image of its own.
	Platforms []ocispec.Platform
	Cache     *Cache // nil: what is found out is forgotten
	Workers   int    // layers that are read at a time; 0 is one for each core, and four at most: each takes memory for its entries
	// KeepGoing leaves out images that cannot be read, and has the report say so.
	KeepGoing bool
	Progress  Progress // nil: none
}

// Progress follows a comparison. Its methods are called from several goroutines.
type Progress interface {
	// Image is called with the bytes of the image's blobs.
	Image(ref string, bytes int64) ImageProgress
	Note(text string)
}

// ImageProgress follows one image. Done or Failed is called last, and once.
type ImageProgress interface {
	Read(n int64)
	Done(cached bool)
	Failed(err error)
}

// A subject is an image that is compared.
type subject struct {
	ref      string
	look     convert.Look
	looker   *convert.Looker
	progress ImageProgress
	pending  int  // layers that are to be read
	cached   bool // all were known
	err      error
}

// A unit is a layer, once for all images that have it.
type unit struct {
	seen  convert.LookLayer
	users []*subject
}

// key tells layers apart.
func key(l convert.LookLayer) string {
	if l.Root != "" {
		return l.Root.String()
	}
	return fmt.Sprint(l.Desc.Digest, " ", l.DiffID, " ", l.Desc.Size, " ", l.Desc.MediaType)
}

// A comparison is one call of Compare.
type comparison struct {
	Options
	enc      *zstd.Encoder
	subjects []*subject
	failed   []Failed
	sources  []convert.Source
	node     func() (convert.Node, error)
	perLayer int // goroutines

	mu sync.Mutex // guards what subjects become
}

// Compare compares images. If one cannot be read the error says which, unless KeepGoing is set.
func Compare(ctx context.Context, opts Options) (report *Report, err error) {
	if len(opts.Refs) == 0 {
		return nil, errors.New("no image to compare")
	}
	if opts.Workers == 0 {
		opts.Workers = min(runtime.GOMAXPROCS(0), maxWorkers)
	}
	if opts.Progress == nil {
		opts.Progress = silent{}
	}
	if opts.Cache != nil {
		if err := opts.Cache.usable(); err != nil {
			opts.Progress.Note(fmt.Sprintf("what is found out is not kept: %v", err))
			opts.Cache = nil
		}
	}
	if opts.Cache == nil {
		dir, err := os.MkdirTemp("", "ipcs-compare-")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		opts.Cache = NewCache(dir)
	}
	c := &comparison{Options: opts}
	c.node = sync.OnceValues(func() (convert.Node, error) {
		if opts.Node == nil {
			return nil, ErrNoNode
		}
		return opts.Node(ctx)
	})
	cores := runtime.GOMAXPROCS(0)
	c.perLayer = max(1, cores/opts.Workers)
	if c.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(cores), zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, err
	}
	defer func() {
		for _, s := range c.sources {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	if err := c.open(ctx); err != nil {
		return nil, err
	}
	if err := c.scan(ctx); err != nil {
		return nil, err
	}
	return c.report(ctx)
}

// units are the layers of all images that were not given up, each once, the largest first: so none of them is waited for at the end.
func (c *comparison) units() []*unit {
	units := map[string]*unit{}
	var list []*unit
	for _, s := range c.subjects {
		for _, l := range distinct(s.look.Layers) {
			u := units[key(l)]
			if u == nil {
				u = &unit{seen: l}
				units[key(l)] = u
				list = append(list, u)
			}
			u.users = append(u.users, s)
		}
	}
	slices.SortStableFunc(list, func(a, b *unit) int { return int(min(max(b.seen.Desc.Size-a.seen.Desc.Size, -1), 1)) })
	return list
}

// scan reads what is not known of the layers.
func (c *comparison) scan(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(c.Workers)
	for _, u := range c.units() {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			cached, err := c.scanOne(ctx, u)
			if err != nil && (!c.KeepGoing || ctx.Err() != nil) {
				err = fmt.Errorf("%s: layer %s: %w", u.users[0].ref, firstOf(u.seen.Desc.Digest, u.seen.Root), err)
			}
			c.ended(u, cached, err)
			if c.KeepGoing && ctx.Err() == nil {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	c.giveUp()
	if len(c.subjects) == 0 {
		return errors.New("none of the images can be read")
	}
	return nil
}

func firstOf(a, b digest.Digest) digest.Digest {
	if a != "" {
		return a
	}
	return b
}

// scanOne has what is known of a layer in the cache.
func (c *comparison) scanOne(ctx context.Context, u *unit) (cached bool, err error) {
	read := func(n int64) {
		for _, s := range u.users {
			s.progress.Read(n)
		}
	}
	if u.seen.Root == "" && c.Cache.load(u.seen) != nil {
		read(u.seen.Desc.Size)
		return true, nil
	}
	s, err := c.read(ctx, u, read)
	if err == nil && u.seen.Root == "" {
		err = c.Cache.save(s)
	}
	return false, err
}

// read reads a layer from the first of those who have it that gives it.
func (c *comparison) read(ctx context.Context, u *unit, read func(int64)) (*scan, error) {
	var errs []error
	for _, user := range u.users {
		var s *scan
		var err error
		if u.seen.Root == "" {
			s, err = scanLayer(ctx, user.looker, u.seen, c.enc, read)
		} else if node, nerr := c.node(); nerr != nil {
			err = nerr
		} else {
			s, err = scanIndex(ctx, user.looker, node, u.seen)
		}
		if err == nil {
			return s, nil
		}
		if errs = append(errs, err); ctx.Err() != nil || u.seen.Root != "" {
			break
		}
	}
	return nil, errs[0]
}

// ended notes that a layer was read.
func (c *comparison) ended(u *unit, cached bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range u.users {
		s.cached = s.cached && cached
		s.pending--
		switch {
		case s.err != nil: // it was said
		case err != nil:
			s.err = err
			s.progress.Failed(err)
		case s.pending == 0:
			s.progress.Done(s.cached)
		}
	}
}

// giveUp leaves out images of which a layer could not be read.
func (c *comparison) giveUp() {
	c.subjects = slices.DeleteFunc(c.subjects, func(s *subject) bool {
		if s.err != nil {
			c.failed = append(c.failed, Failed{s.ref, s.err.Error()})
			c.Progress.Note(fmt.Sprintf("%s is left out: %v", s.ref, s.err))
		}
		return s.err != nil
	})
}

type silent struct{}

func (silent) Image(string, int64) ImageProgress { return silent{} }
func (silent) Note(string)                       {}
func (silent) Read(int64)                        {}
func (silent) Done(bool)                         {}
func (silent) Failed(error)                      {}
