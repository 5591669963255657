package objects

import (
	"errors"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

const (
	// recencyInterval is how often the access times of objects are written.
	recencyInterval = 5 * time.Minute
	// maxRecent bounds the objects that are remembered as used until then.
	maxRecent = 1 << 16
)

// recency remembers which objects were used, until that is written to them: their access
// times say which were not used for longest. The kernel does not move those: what overlayfs
// reads of an object it reads without a trace.
type recency struct {
	mu   sync.Mutex
	used map[cid.Cid]time.Time
}

// add remembers a use, and says whether no more objects will be remembered.
func (r *recency) add(c cid.Cid, at time.Time) (full bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used == nil {
		r.used = make(map[cid.Cid]time.Time)
	}
	if _, ok := r.used[c]; ok || len(r.used) < maxRecent {
		r.used[c] = at
	}
	return len(r.used) >= maxRecent
}

func (r *recency) has(c cid.Cid) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.used[c]
	return ok
}

func (r *recency) isFull() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.used) >= maxRecent
}

func (r *recency) take() map[cid.Cid]time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := r.used
	r.used = nil
	return used
}

// Touch says that an object was used just now. It costs next to nothing, and does nothing in
// a store without a limit. OpenFile and Get do so themselves; others may know of uses that
// the store does not see, as of objects that containers read natively.
func (s *Store) Touch(object cid.Cid) {
	if s.room.limit.Load() > 0 && s.recent.add(object, time.Now()) {
		s.room.nudge()
	}
}

// TouchLeaf says that a leaf was used just now, whichever object it lies in.
func (s *Store) TouchLeaf(leaf cid.Cid) {
	digest, ok := digestOf(leaf)
	if s.room.limit.Load() == 0 || !ok {
		return
	}
	if object, _, err := s.find(leaf, digest); err == nil {
		s.Touch(object)
	}
}

// writeRecency writes the access times of the objects that were used.
func (s *Store) writeRecency() {
	for c, at := range s.recent.take() {
		times := []unix.Timespec{unix.NsecToTimespec(at.UnixNano()), {Nsec: unix.UTIME_OMIT}}
		err := unix.UtimesNanoAt(unix.AT_FDCWD, s.objectPath(c), times, unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			s.log.Warn("cannot write down that an object was used; it may be evicted too early", "cid", c.String(), "error", err)
		}
	}
}
