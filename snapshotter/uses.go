//go:build linux

package snapshotter

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/opens"
)

const (
	// usesInterval is how often the same file is told to be used.
	usesInterval = 5 * time.Minute
	// maxUnnamed bounds the files that are remembered until it is known which they are.
	maxUnnamed = 1 << 14
)

// uses tells which files containers open, for as long as they run: what is on disk they read
// without us, and the store has to know what not to evict. It watches the overlays of
// containers by image (package opens), since what names the files of one names those of all.
type uses struct {
	tell func(cid.Cid)
	dirs func(ctx context.Context, links []link) []string // where the EROFS images of a chain are mounted
	log  *slog.Logger

	mu     sync.Mutex
	uppers map[string]imageUse // by upper directory
	keys   map[string]string   // of snapshots, to upper directories

	stop context.CancelFunc // nil until start
	wg   sync.WaitGroup
}

// imageUse is what a container runs on.
type imageUse struct {
	chain string
	links []link
}

// newUses returns nil, on which all methods do nothing, if nobody is to be told.
func newUses(tell func(cid.Cid), dirs func(context.Context, []link) []string, log *slog.Logger) *uses {
	if tell == nil {
		return nil
	}
	return &uses{tell: tell, dirs: dirs, log: log, uppers: make(map[string]imageUse), keys: make(map[string]string)}
}

// start watches until close. Of ctx only the values count.
func (u *uses) start(ctx context.Context) {
	if u == nil {
		return
	}
	ctx, u.stop = context.WithCancel(context.WithoutCancel(ctx))
	u.wg.Go(func() {
		if err := opens.Track(ctx, usesInterval, u); err != nil {
			u.log.Warn("it is not known which files containers read that are on disk: they are evicted by when they were fetched", "err", err)
		}
	})
}

// close ends all and waits for it.
func (u *uses) close() {
	if u != nil && u.stop != nil {
		u.stop()
		u.wg.Wait()
	}
}

// begin says that a container may run on a snapshot with this upper directory.
func (u *uses) begin(key, upper string, im *imageFiles, links []link) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.uppers[upper] = imageUse{im.chain.String(), links}
	u.keys[key] = upper
}

// gone says that a snapshot is gone.
func (u *uses) gone(key string) {
	if u == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.uppers, u.keys[key])
	delete(u.keys, key)
}

// find returns the parents of a snapshot that a container of an image runs on.
func (u *uses) find(chain string) []link {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range u.uppers {
		if use.chain == chain {
			return use.links
		}
	}
	return nil
}

// Group implements opens.Observer.
func (u *uses) Group(upper string) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.uppers[upper].chain
}

// Begin implements opens.Observer. It does not wait for what names the files, which a peer may
// have to send: an event that was not read holds its mount, and who unmounts it is refused.
func (u *uses) Begin(ctx context.Context, chain string) (opened func(path string), end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var mu sync.Mutex // guards what follows
	var names names
	var known bool
	var paths []string // that have no names yet
	tell := func(path string) {
		if c, ok := names.cid(path); ok {
			u.tell(c)
		}
	}
	found := make(chan struct{})
	go func() {
		defer close(found)
		n := openNames(u.dirs(ctx, u.find(chain)))
		u.log.Debug("watching which files of an image are read", "chain", chain)
		mu.Lock()
		defer mu.Unlock()
		names, known = n, true
		for _, path := range paths { // each is told of once in an interval
			tell(path)
		}
		paths = nil
	}()
	opened = func(path string) {
		mu.Lock()
		defer mu.Unlock()
		if known {
			tell(path)
		} else if len(paths) < maxUnnamed {
			paths = append(paths, path)
		}
	}
	return opened, func() {
		cancel()
		<-found
		names.close()
	}
}

// Lost implements opens.Observer.
func (u *uses) Lost(chain string, err error) {
	u.log.Warn("it is not known which files of an image are read that are on disk: they are evicted by when they were fetched", "chain", chain, "err", err)
}

// mountedImages mounts the EROFS images of a chain, as far as they are not, and returns where.
func (s *Snapshotter) mountedImages(ctx context.Context, links []link) []string {
	for r := range runs(links) {
		if _, err := s.mountRun(ctx, r); err != nil {
			s.log.Info("it is not known which files of some layers are read", "err", err)
		}
	}
	return s.imageDirs(links)
}
