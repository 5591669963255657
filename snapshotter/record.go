//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/opens"
	"github.com/hinshun/ipcs/ipfs"
)

// redirectXattr says in our EROFS images which object a file is: "/xy/CID". Where they have
// another name for it, in user namespaces, the kernel does not tell what is opened.
const redirectXattr = string(trusted) + "redirect"

// A recorder records which files the first container of an image opens, in order, for a
// while after the first: its profile. What is on disk is read without us, so it has the
// kernel tell what is opened on the container's overlay (package opens). Where the kernel
// does not, it takes the reads of the lazy file system, and so only what was not here. Of large
// files it names the leaves that are read, if it can know them (recording.go).
//
// A container that ends earlier makes a profile, too, until another makes a longer one.
// One goroutine waits for each container that is recorded, and whoever asks for a recording
// (asked.go) waits himself.
type recorder struct {
	window time.Duration // 0: nothing is recorded
	served bool          // DataServed: paths do not tell which object a file is
	log    *slog.Logger
	save   func(chain digest.Digest, files []cid.Cid, full bool) error

	// reading are those that are running, for observe, which must be quick.
	reading atomic.Pointer[[]*recording]

	mu      sync.Mutex
	closed  bool
	running map[*recording]struct{}
	orders  map[*order]struct{}
	done    map[digest.Digest]struct{}
	wg      sync.WaitGroup
}

// A candidate is a container that may be about to start.
type candidate struct {
	key   string // of its snapshot
	upper string // directory of its overlay
	dirs  []string
	image *imageFiles
	// first says that it was just made: it is recorded if the image never was.
	first bool
	find  func(cid.Cid) (ipfs.File, bool) // the file of the image with this CID
	// here says that all of a file is here, or which of its leaves were read already.
	here func(ipfs.File) (read []int, all bool)
}

func newRecorder(window time.Duration, log *slog.Logger, save func(digest.Digest, []cid.Cid, bool) error) *recorder {
	return &recorder{
		window: window, log: log, save: save,
		running: make(map[*recording]struct{}), orders: make(map[*order]struct{}), done: make(map[digest.Digest]struct{}),
	}
}

var errServed = errors.New("files are served by a process, in which nobody sees what is opened")

// newRecording makes the recording of a container, which is not recorded yet. It is called
// with r.mu, as drop is.
func (r *recorder) newRecording(c candidate, window time.Duration) *recording {
	rec := newRecording(c, window)
	r.running[rec] = struct{}{}
	r.publish()
	return rec
}

// drop ends that a recording is told anything.
func (r *recorder) drop(rec *recording) {
	delete(r.running, rec)
	r.publish()
}

func (r *recorder) publish() {
	all := slices.Collect(maps.Keys(r.running))
	r.reading.Store(&all)
}

// begin records what a container opens, if somebody has asked for that, or if it is the
// first of its image. Of ctx only the values count.
func (r *recorder) begin(ctx context.Context, c candidate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.take(c) {
		return
	}
	if _, done := r.done[c.image.chain]; done || r.closed || r.window <= 0 || !c.first {
		return
	}
	for rec := range r.running {
		if rec.key == c.key || rec.image.chain == c.image.chain && rec.begun() {
			return
		}
	}
	for rec := range r.running {
		if rec.image.chain == c.image.chain {
			rec.cancel() // what was made and not started so far may never be
		}
	}
	rec := r.newRecording(c, r.window)
	r.wg.Go(func() {
		r.record(context.WithoutCancel(ctx), rec)
		r.end(rec)
	})
}

// record returns when the time is up, the container gone, or ctx at its end.
func (r *recorder) record(ctx context.Context, rec *recording) {
	ctx, cancel := context.WithCancel(ctx)
	var stopping sync.WaitGroup
	stopping.Go(func() {
		select {
		case <-rec.stopped:
			cancel()
		case <-ctx.Done():
		}
	})
	defer stopping.Wait()
	defer cancel()
	names := openNames(rec.dirs)
	defer names.close()
	err := errServed
	if !r.served {
		err = opens.Watch(ctx, rec.upper, func(path string) {
			if c, ok := names.cid(path); ok {
				rec.opened(c)
			}
		})
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	r.log.Warn("profiles are recorded from what is fetched alone", "chain", rec.image.chain.String(), "err", err)
	rec.takeReads()
	<-ctx.Done()
}

// end keeps what was recorded.
func (r *recorder) end(rec *recording) {
	files, full := rec.stop()
	r.mu.Lock()
	r.drop(rec)
	closed := r.closed
	_, known := r.done[rec.image.chain]
	if full && len(files) > 0 {
		r.done[rec.image.chain] = struct{}{}
	}
	r.mu.Unlock()
	if len(files) == 0 || known || closed && !full {
		return
	}
	if err := r.save(rec.image.chain, files, full); err != nil {
		r.log.Warn("cannot keep a profile", "chain", rec.image.chain.String(), "err", err)
		return
	}
	r.log.Info("recorded a profile", "chain", rec.image.chain.String(), "files", len(files), "full", full)
}

// known says that there is a profile of an image, which needs no other: also not the one
// that is being recorded.
func (r *recorder) known(chain digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[chain] = struct{}{}
	for rec := range r.running {
		if rec.image.chain == chain {
			rec.cancel()
		}
	}
}

// observe takes a read of the lazy file system. Any container may have read it.
func (r *recorder) observe(f ipfs.File, off, size int64) {
	all := r.reading.Load()
	if all == nil {
		return
	}
	for _, rec := range *all {
		rec.read(f, off, size)
	}
}

// gone says that a snapshot is gone.
func (r *recorder) gone(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for rec := range r.running {
		if rec.key == key {
			rec.cancel()
		}
	}
}

// close ends all and waits for it. What has not come to its end is not kept.
func (r *recorder) close() {
	r.mu.Lock()
	r.closed = true
	for rec := range r.running {
		rec.cancel()
	}
	for o := range r.orders {
		o.cancel(errClosed)
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// openProfiles makes ready what gets files ahead of need, and what records which.
func (s *Snapshotter) openProfiles(cfg *Config) error {
	s.prefetch, s.fill = cfg.Prefetch, cfg.Fill
	s.ahead = newAhead(s.log, s.getAhead)
	s.recorder = newRecorder(cfg.ProfileWindow, s.log, s.keepProfile)
	s.recorder.served = s.support.data == DataServed
	s.profiles = profiles{filepath.Join(cfg.Root, profilesDir)}
	all, err := s.profiles.list()
	if err != nil {
		return fmt.Errorf("list profiles: %w", err)
	}
	for _, p := range all {
		if s.profiles.full(p.Chain) {
			s.recorder.known(p.Chain) // needs no other
		}
	}
	return nil
}

// keepProfile keeps what was recorded. What a container that ended early read is kept if
// there is nothing better.
func (s *Snapshotter) keepProfile(chain digest.Digest, files []cid.Cid, full bool) error {
	if old, err := s.profiles.get(chain); err == nil && !full && len(old) >= len(files) {
		return nil
	}
	return s.profiles.put(chain, files, !full)
}

// A stage says how far a container on a snapshot may have come.
type stage int

const (
	stageUnknown stage = iota // it may run, or be a view
	stageMade
	stageMounted // it may be about to start
)

// stageOf is the stage of what a snapshot of this kind is made or mounted for.
func stageOf(kind snapshots.Kind, at stage) stage {
	if kind != snapshots.KindActive {
		return stageUnknown
	}
	return at
}

// used says that a container may run on a snapshot.
func (s *Snapshotter) used(ctx context.Context, key, id string, links []link, at stage) {
	im := imageOf(links)
	if im == nil {
		return
	}
	im.namespace = containerdNamespace(key)
	s.uses.begin(key, s.upperPath(id), im, links)
	if at != stageUnknown {
		s.recorder.begin(ctx, candidate{key: key, upper: s.upperPath(id), dirs: s.imageDirs(links), image: im, first: at == stageMade, find: s.findFile(im.roots), here: s.hereOf})
	}
	if s.prefetch != nil {
		s.ahead.use(ctx, key, im)
	}
}

// findFile returns the files that these layers have.
func (s *Snapshotter) findFile(roots []cid.Cid) func(cid.Cid) (ipfs.File, bool) {
	return func(c cid.Cid) (ipfs.File, bool) { return findIn(s.files.tables(roots), c) }
}

// hereOf says that all of a file is here, or which of its leaves were read already.
func (s *Snapshotter) hereOf(f ipfs.File) (read []int, all bool) {
	if s.prefetch == nil || s.prefetch.Has(f) {
		return nil, true
	}
	read, known := s.prefetch.LeavesRead(f)
	return read, !known && s.prefetch.Has(f) // it may have come meanwhile
}

// unused says that a snapshot is gone, or is no container's any more.
func (s *Snapshotter) unused(key string) {
	s.recorder.gone(key)
	s.uses.gone(key)
	s.ahead.unuse(key)
}

// imageDirs are where the EROFS images of a chain are mounted, the topmost first.
func (s *Snapshotter) imageDirs(links []link) []string {
	var dirs []string
	for r := range runs(links) {
		dirs = append(dirs, s.chains.mountPoint(r.id))
	}
	return dirs
}

// Observe implements Files.
func (s *Snapshotter) Observe(f ipfs.File, off, size int64) { s.recorder.observe(f, off, size) }
