//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// A Prefetcher gets files before somebody reads them, as fetch.Fetcher does.
type Prefetcher interface {
	Prefetch(ctx context.Context, files iter.Seq[ipfs.File], p fetch.Priority) error
	// PrefetchParts gets also leaves of files.
	PrefetchParts(ctx context.Context, parts iter.Seq[fetch.Part], p fetch.Priority) error
	// LeavesRead returns which leaves were read of a large file that is not here, if that is known.
	LeavesRead(f ipfs.File) (leaves []int, known bool)
	// Has says whether all of a file is here.
	Has(f ipfs.File) bool
}

// A FillMode says of which images all files are fetched when a container uses them.
type FillMode string

// The modes.
const (
	FillOn        FillMode = "on"        // of all but those whose annotation says no
	FillAnnotated FillMode = "annotated" // of those whose annotation says so
	FillOff       FillMode = "off"       // of none
)

// Pauses before files that could not be had are tried again.
const (
	firstPause = 30 * time.Second
	lastPause  = time.Hour
)

// imageFiles are what the ipcs layers of a snapshot are, as far as getting their files ahead
// of need goes.
type imageFiles struct {
	chain     digest.Digest // of the topmost ipcs layer: names the image
	roots     []cid.Cid     // of all ipcs layers, the topmost first
	runs      []run         // that they are in, the topmost first
	depth     int           // layers below the topmost ipcs layer
	namespace string        // of containerd, where a container uses it; empty if not known
	hints                   // of the first pull

	state atomic.Int32 // index into fillStates
}

// imageOf returns the image that a snapshot with these parents is of, or nil.
func imageOf(links []link) *imageFiles {
	im := &imageFiles{runs: slices.Collect(runs(links))}
	for i, l := range links {
		if !l.lazy() {
			continue
		}
		if len(im.roots) == 0 {
			im.chain, im.depth, im.hints = l.chain, len(links)-1-i, l.hints
		}
		im.roots = append(im.roots, l.root)
	}
	if len(im.roots) == 0 || im.chain == "" {
		return nil
	}
	return im
}

// isRun says whether a snapshot is one that a container may run on.
func isRun(kind snapshots.Kind, key string, labels map[string]string) bool {
	return kind != snapshots.KindCommitted && !isExtraction(key, labels)
}

// ahead gets files of images before they are read: one goroutine for each image that
// snapshots of containers use, which ends with the last of these, or when nothing is left to
// get. One more container of an image whose files are not all wanted makes it begin again: by
// now the image may have been pulled with another profile.
type ahead struct {
	log *slog.Logger
	get func(ctx context.Context, im *imageFiles) error

	mu     sync.Mutex
	closed bool
	keys   map[string]digest.Digest // of snapshots, to images
	images map[digest.Digest]*aheadImage
	wg     sync.WaitGroup
}

type aheadImage struct {
	*imageFiles
	users  int
	again  bool // one more uses it since its files began to be got
	ended  bool // nothing is being got
	cancel context.CancelFunc
}

func newAhead(log *slog.Logger, get func(context.Context, *imageFiles) error) *ahead {
	return &ahead{log: log, get: get, keys: make(map[string]digest.Digest), images: make(map[digest.Digest]*aheadImage)}
}

// use says that a container's snapshot uses an image. It may be said again. Of ctx only the
// values count.
func (a *ahead) use(ctx context.Context, key string, im *imageFiles) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.keys[key]; ok || a.closed {
		return
	}
	a.keys[key] = im.chain
	if used := a.images[im.chain]; used != nil {
		used.users++
		used.again = true
		if used.ended && used.fillState() == FillNone {
			a.start(ctx, used)
		}
		return
	}
	used := &aheadImage{imageFiles: im, users: 1}
	a.images[im.chain] = used
	a.start(ctx, used)
}

// start begins to get the files of an image. It is called with a.mu.
func (a *ahead) start(ctx context.Context, used *aheadImage) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	used.cancel, used.again, used.ended = cancel, false, false
	a.wg.Go(func() {
		defer cancel()
		for {
			if err := a.get(ctx, used.imageFiles); err != nil && ctx.Err() == nil {
				a.log.Warn("files of an image are not got before they are read", "chain", used.chain.String(), "err", err)
			}
			if !a.more(ctx, used) {
				return
			}
		}
	})
}

// more says whether to begin again.
func (a *ahead) more(ctx context.Context, used *aheadImage) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	more := used.again && used.fillState() == FillNone && ctx.Err() == nil
	used.again, used.ended = false, !more
	return more
}

// unuse says that a snapshot is gone.
func (a *ahead) unuse(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	chain, ok := a.keys[key]
	if !ok {
		return
	}
	delete(a.keys, key)
	if used := a.images[chain]; used.users > 1 {
		used.users--
	} else {
		used.cancel()
		delete(a.images, chain)
	}
}

// close ends all and waits for it.
func (a *ahead) close() {
	a.mu.Lock()
	a.closed = true
	for _, used := range a.images {
		used.cancel()
	}
	a.mu.Unlock()
	a.wg.Wait()
}

// getAhead gets the files of an image: those of its profile, and then the others, if they
// are wanted. What cannot be had is tried again later.
func (s *Snapshotter) getAhead(ctx context.Context, im *imageFiles) error {
	profiled := true
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.getOnce(ctx, im, profiled)
		if err == nil || ctx.Err() != nil || errors.Is(err, fetch.ErrClosed) {
			return nil
		}
		if errors.Is(err, fetch.ErrNoRoom) {
			pause = lastPause // others must go first
			profiled = false  // was here; what was evicted of it since, nobody has read
		}
		im.enter(FillRetry)
		s.log.Info("files of an image could not be got before they are read: trying again later", "chain", im.chain.String(), "pause", pause, "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

func (s *Snapshotter) getOnce(ctx context.Context, im *imageFiles, profiled bool) error {
	hints := s.locateImage(ctx, im)
	if err := s.learn(ctx, run{roots: im.roots}); err != nil {
		return err
	}
	tables := s.files.tables(im.roots)
	var missing error // of the profiles
	if profiled {
		im.enter(FillProfile)
		missing = s.getProfiles(ctx, im, hints, tables)
		if missing != nil && !errors.Is(missing, fetch.ErrIncomplete) {
			return fmt.Errorf("get the files of the profile: %w", missing)
		}
	}
	if !s.fills(hints) {
		if missing == nil {
			im.enter(FillNone)
		}
		return missing
	}
	im.enter(FillAll)
	start := time.Now()
	all, err := s.allFiles(ctx, im)
	if err != nil {
		return err
	}
	if err := s.prefetch.Prefetch(ctx, all, fetch.Fill); err != nil {
		return fmt.Errorf("get all files: %w", err)
	}
	im.enter(FillDone)
	s.log.Info("all files of the image are here", "chain", im.chain.String(), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// getProfiles gets the files of the profile that is here, and then those of the one that the
// image record names: that may have to be fetched itself, and nobody may have it. The error
// is fetch.ErrIncomplete if only some files could not be had.
func (s *Snapshotter) getProfiles(ctx context.Context, im *imageFiles, h hints, tables []*fileTable) error {
	var missing error
	for _, profile := range []func() []cid.Cid{
		func() []cid.Cid { return s.ownProfile(im) },
		func() []cid.Cid { return s.givenProfile(ctx, h) },
	} {
		files := profile()
		if len(files) == 0 {
			continue
		}
		start := time.Now()
		err := s.prefetch.PrefetchParts(ctx, named(tables, files), fetch.Profile)
		if err != nil && !errors.Is(err, fetch.ErrIncomplete) {
			return err
		}
		missing = errors.Join(missing, err)
		s.log.Info("got the files of the profile", "chain", im.chain.String(), "files", len(files), "took", time.Since(start).Round(time.Millisecond), "err", err)
	}
	return missing
}

// fills says whether all files of an image are to be fetched.
func (s *Snapshotter) fills(h hints) bool {
	switch s.fill {
	case FillOn:
		return h.fill != "false"
	case FillAnnotated:
		return h.fill == "true"
	default:
		return false
	}
}

// ownProfile returns the profile that was recorded here or imported. A profile is a hint:
// without one, nothing is lost but time.
func (s *Snapshotter) ownProfile(im *imageFiles) []cid.Cid {
	files, err := s.profiles.get(im.chain)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Warn("cannot use a profile", "err", err)
	}
	return files
}

// givenProfile returns the profile that the image record names.
func (s *Snapshotter) givenProfile(ctx context.Context, h hints) []cid.Cid {
	files, err := s.opener.profile(ctx, h.record)
	if err != nil && ctx.Err() == nil {
		s.log.Info("the profile that an image names is of no use", "record", h.record, "err", err)
	}
	return files
}

// profile returns the profile that an image record names; nil if it names none.
func (o *opener) profile(ctx context.Context, record cid.Cid) ([]cid.Cid, error) {
	if !record.Defined() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	m, err := o.record(ctx, record)
	if err != nil {
		return nil, err
	}
	return o.fetchProfile(ctx, m)
}

// record returns an image record, and tells what is in it.
func (o *opener) record(ctx context.Context, record cid.Cid) (*layer.Image, error) {
	b, err := o.src.Get(ctx, record)
	if err != nil {
		return nil, err
	}
	m, err := layer.DecodeImage(b)
	if err != nil {
		return nil, err
	}
	o.recorded(record, m)
	return m, nil
}

// learn reads an image record behind the caller.
func (o *opener) learn(ctx context.Context, record cid.Cid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.start(ctx, func(ctx context.Context) { // who closes it needs nothing
		ctx, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		if _, err := o.record(ctx, record); err != nil && ctx.Err() == nil {
			o.log.Info("image record is of no use", "record", record, "err", err)
		}
	})
}

func (o *opener) fetchProfile(ctx context.Context, m *layer.Image) ([]cid.Cid, error) {
	if m.Profile == "" {
		return nil, nil
	}
	c, err := cid.Decode(m.Profile)
	if err != nil {
		return nil, err
	}
	b, err := o.src.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return layer.DecodeProfile(b)
}
