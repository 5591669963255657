//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/opens"
	"github.com/hinshun/ipcs/layer"
)

// redirectXattr says in our EROFS images which object a file is: "/xy/CID".
const redirectXattr = "trusted.overlay.redirect"

// A recorder records which files the first container of an image opens, in order, for a
// while after the first: its profile. What is on disk is read without us, so it has the
// kernel tell what is opened on the container's overlay (package opens). Where the kernel
// does not, it takes the reads of the lazy file system, and so only what was not here.
//
// A container that ends earlier makes a profile, too, until another makes a longer one.
// One goroutine waits for each container that is recorded.
type recorder struct {
	window time.Duration // 0: nothing is recorded
	log    *slog.Logger
	save   func(chain digest.Digest, files []cid.Cid, full bool) error

	lazy atomic.Int32 // recordings that depend on the lazy file system

	mu      sync.Mutex
	closed  bool
	running map[string]*recording // by the key of the snapshot
	done    map[digest.Digest]struct{}
	wg      sync.WaitGroup
}

// A recording is that of one container.
type recording struct {
	image  *imageFiles
	cancel context.CancelFunc
	window time.Duration

	mu     sync.Mutex
	lazy   bool // reads of the lazy file system count
	full   bool // the time is up
	timer  *time.Timer
	seen   map[cid.Cid]struct{}
	files  []cid.Cid
	closed bool
}

func newRecorder(window time.Duration, log *slog.Logger, save func(digest.Digest, []cid.Cid, bool) error) *recorder {
	return &recorder{
		window: window, log: log, save: save,
		running: make(map[string]*recording), done: make(map[digest.Digest]struct{}),
	}
}

// begin records what is opened on the overlay with this upper directory, unless the image
// is recorded already. The EROFS images in dirs know the files. Of ctx only the values
// count.
func (r *recorder) begin(ctx context.Context, key, upper string, im *imageFiles, dirs []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, done := r.done[im.chain]; done || r.closed || r.window <= 0 {
		return
	}
	for k, rec := range r.running {
		if k == key || rec.image.chain == im.chain && rec.begun() {
			return
		}
	}
	for _, rec := range r.running {
		if rec.image.chain == im.chain {
			rec.cancel() // what was made and not started so far may never be
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	rec := &recording{image: im, cancel: cancel, window: r.window, seen: make(map[cid.Cid]struct{})}
	r.running[key] = rec
	r.wg.Go(func() {
		defer cancel()
		r.record(ctx, rec, upper, dirs)
		r.end(key, rec)
	})
}

// record returns when the time is up, or the container gone.
func (r *recorder) record(ctx context.Context, rec *recording, upper string, dirs []string) {
	names := openNames(dirs)
	defer names.close()
	err := opens.Watch(ctx, upper, func(path string) {
		if c, ok := names.cid(path); ok {
			rec.add(c)
		}
	})
	if err == nil || ctx.Err() != nil {
		return
	}
	r.log.Warn("profiles are recorded from what is fetched alone", "chain", rec.image.chain.String(), "err", err)
	rec.mu.Lock()
	rec.lazy = true
	rec.mu.Unlock()
	r.lazy.Add(1)
	defer r.lazy.Add(-1)
	<-ctx.Done()
}

// end keeps what was recorded.
func (r *recorder) end(key string, rec *recording) {
	files, full := rec.stop()
	r.mu.Lock()
	delete(r.running, key)
	closed := r.closed
	_, known := r.done[rec.image.chain]
	if full {
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
	for _, rec := range r.running {
		if rec.image.chain == chain {
			rec.cancel()
		}
	}
}

// observe takes a read of the lazy file system.
func (r *recorder) observe(c cid.Cid) {
	if r.lazy.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rec := range r.running {
		rec.mu.Lock()
		lazy := rec.lazy
		rec.mu.Unlock()
		if lazy {
			rec.add(c)
		}
	}
}

// gone says that a snapshot is gone.
func (r *recorder) gone(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if rec := r.running[key]; rec != nil {
		rec.cancel()
	}
}

// close ends all and waits for it. What has not come to its end is not kept.
func (r *recorder) close() {
	r.mu.Lock()
	r.closed = true
	for _, rec := range r.running {
		rec.cancel()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// add takes a file that was opened. The first begins the time.
func (rec *recording) add(c cid.Cid) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if _, ok := rec.seen[c]; ok || len(rec.files) == layer.MaxProfile || rec.closed {
		return
	}
	rec.seen[c] = struct{}{}
	rec.files = append(rec.files, c)
	if rec.timer == nil {
		rec.timer = time.AfterFunc(rec.window, func() {
			rec.mu.Lock()
			defer rec.mu.Unlock()
			rec.full = true
			rec.cancel()
		})
	}
}

// begun says whether anything was opened.
func (rec *recording) begun() bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return len(rec.files) > 0
}

// stop ends the recording and returns what there is of it.
func (rec *recording) stop() (files []cid.Cid, full bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.closed = true
	if rec.timer != nil {
		rec.timer.Stop()
	}
	return rec.files, rec.full
}

// openProfiles makes ready what gets files ahead of need, and what records which.
func (s *Snapshotter) openProfiles(cfg *Config) error {
	s.prefetch, s.fill = cfg.Prefetch, cfg.Fill
	s.ahead = newAhead(s.log, s.getAhead)
	s.recorder = newRecorder(cfg.ProfileWindow, s.log, s.keepProfile)
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

// used says that a container may run on a snapshot.
func (s *Snapshotter) used(ctx context.Context, key, id string, links []link, record bool) {
	im := imageOf(links)
	if im == nil {
		return
	}
	s.uses.begin(key, s.upperPath(id), im, links)
	if record {
		s.recorder.begin(ctx, key, s.upperPath(id), im, s.imageDirs(links))
	}
	if s.prefetch != nil {
		s.ahead.use(ctx, key, im)
	}
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
	for i := 0; i < len(links); {
		if !links[i].lazy() {
			i++
			continue
		}
		r := firstRun(links[i:])
		dirs = append(dirs, s.chains.mountPoint(r.id))
		i += len(r.roots)
	}
	return dirs
}

// Observe implements Files.
func (s *Snapshotter) Observe(c cid.Cid) { s.recorder.observe(c) }

// names finds which object a path of a container is.
type names []int // descriptors of the mounted EROFS images, the topmost first

func openNames(dirs []string) names {
	var n names
	for _, dir := range dirs {
		// One that is gone has no names.
		if fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			n = append(n, fd)
		}
	}
	return n
}

func (n names) close() {
	for _, fd := range n {
		_ = unix.Close(fd) // nothing was written
	}
}

// cid returns the object at a path. The container may have put something else there, or a
// symlink on the way to it, which must not lead out of the image.
func (n names) cid(at string) (cid.Cid, bool) {
	for _, root := range n {
		fd, err := unix.Openat2(root, at, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if err != nil {
			continue
		}
		buf := make([]byte, 256)
		size, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), redirectXattr, buf)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			continue
		}
		if c, err := cid.Decode(path.Base(string(buf[:size]))); err == nil {
			return c, true
		}
	}
	return cid.Undef, false
}
