package objects

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

const (
	// evictShare of the limit is freed at a time: finding out what may go costs a look at
	// every object and at all that pins need.
	evictShare = 10
	// retryShare of the limit must have come after objects could not be evicted, before that
	// is tried again.
	retryShare = 64
	// putGrace is how long what was Put stays although nothing keeps it yet: a pin comes last.
	putGrace = time.Hour
	// diskBlock is the unit in which file systems give out space.
	diskBlock = 4096
)

// room is what keeps the store within its limit.
type room struct {
	limit   atomic.Int64 // bytes on disk; 0: none
	wake    chan struct{}
	batch   sync.Mutex   // held while objects are evicted
	batches atomic.Int64 // that freed something
	objects atomic.Int64 // evicted
	bytes   atomic.Int64 // evicted

	mu         sync.Mutex // guards what follows
	keep       func() []cid.Cid
	put        map[key]time.Time // what was Put, and when
	pinning    map[cid.Cid]int   // pins that are being made
	generation uint64            // counts what makes objects needed that were not
	stuck      int64             // usage from which on it may be tried again
	held       []heldInode
}

// Space says how much of the disk objects use. Counts are since Open.
type Space struct {
	Limit int64 // 0: none
	// Used counts file sizes, in blocks of the disk, what came of files that are not whole, and
	// Spare: holes count, the database does not.
	Used           int64
	Spare          int64 // of Used, what goes first
	EvictedObjects int64
	EvictedBytes   int64
	// Held is what mounts and open files still hold of the objects that were evicted: the disk
	// gets it back when they are gone. -1: this file system does not tell.
	Held int64
}

// Space returns the usage and the limit.
func (s *Store) Space() Space {
	return Space{
		Limit: s.room.limit.Load(), Used: s.total(), Spare: s.spare.Bytes(),
		EvictedObjects: s.room.objects.Load(), EvictedBytes: s.room.bytes.Load(),
		Held: s.heldBytes(),
	}
}

// ObjectBytes is Used without Spare, and whether that is known: not while the store counts what it
// has. It costs nothing, where Space looks for all that is Held.
func (s *Store) ObjectBytes() (bytes int64, known bool) {
	return s.used.Load() + s.parts.bytes.Load(), s.isCounted()
}

// HasRoom says whether so many bytes more than there are leave the store within its limit, or, if room is to be
// spared, so far below it as evicting does. Whoever adds what nobody waits for adds no more: so
// nothing is evicted for it, nor is used up what was evicted for others. It waits while the store
// counts what it has.
func (s *Store) HasRoom(ctx context.Context, bytes int64, spare bool) (bool, error) {
	limit := s.room.limit.Load()
	if limit == 0 {
		return true, nil
	}
	select {
	case <-s.counted:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	if spare {
		limit -= limit / evictShare
	}
	return s.used.Load()+s.parts.bytes.Load()+onDisk(bytes) <= limit, nil
}

// Limit bounds the bytes on disk that objects use from now on: when there are more, those
// that were not used for longest are removed, but for what is pinned, what was Put within
// putGrace, and the DAGs below the CIDs that keep returns, which is called whenever objects
// are evicted. Mounted files are no exception: they can be fetched again. What is needed may
// exceed the limit. Limit may be called once.
//
// With no limit, which is 0, keep counts for Free.
func (s *Store) Limit(limit int64, keep func() []cid.Cid) {
	s.room.mu.Lock()
	s.room.keep = keep
	s.room.mu.Unlock()
	if limit <= 0 {
		return
	}
	s.room.limit.Store(limit)
	s.wg.Go(s.keepLimit)
}

// keepLimit evicts objects, and writes down which were used.
func (s *Store) keepLimit() {
	if !s.waitCounted(nil) {
		return
	}
	ticker := time.NewTicker(recencyInterval)
	defer ticker.Stop()
	for {
		if s.room.isOver(s.total()) {
			s.evictDown()
		}
		select {
		case <-s.closing:
			return
		case <-s.room.wake:
			if s.recent.isFull() {
				s.writeRecency()
			}
		case <-ticker.C:
			s.writeRecency()
			s.room.forgetPuts()
			s.room.setStuck(0)
			s.heldBytes() // forgets what is no longer held
		}
	}
}

// waitCounted waits until the store has counted what it had when it was opened: what goes
// before that would be taken off without having been counted. It says whether that is so, and
// not the end, or done closed.
func (s *Store) waitCounted(done <-chan struct{}) bool {
	select {
	case <-s.counted:
		return true
	case <-done:
		return false
	case <-s.closing:
		return false
	}
}

// isCounted says whether it has.
func (s *Store) isCounted() bool {
	select {
	case <-s.counted:
		return true
	default:
		return false
	}
}

// evictDown evicts objects until there is room for some that come.
func (s *Store) evictDown() {
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	limit, used := s.room.limit.Load(), s.total()
	if used <= limit {
		return // another has evicted meanwhile
	}
	start := time.Now()
	need := used - limit + limit/evictShare
	freed := s.spare.Drop(need)
	var err error
	if used = s.total(); used > limit { // what is within the limit does not go for room to come
		var evicted int64
		evicted, err = s.evict(used - limit + limit/evictShare)
		freed += evicted
	}
	if err != nil {
		s.log.Error("cannot evict objects", "dir", s.dir, "error", err)
	}
	used = s.total()
	s.log.Info("evicted objects that were not used for longest", "limit", limit, "used", used, "freed", freed, "took", time.Since(start).Round(time.Millisecond))
	if used > limit {
		s.room.setStuck(used + limit/retryShare + 1)
		s.log.Warn("the store is larger than its limit: the rest is pinned, was stored just now, or is needed by snapshots; raise the limit, or remove images and pins", "limit", limit, "used", used)
	}
}

// makeRoom drops what is spare, or else evicts objects, for somebody who found the disk full.
// It says whether it is worth to try again.
func (s *Store) makeRoom() bool {
	if s.spare.Drop(1) > 0 {
		return true
	}
	limit := s.room.limit.Load()
	if limit == 0 || !s.waitCounted(nil) {
		return false
	}
	batches := s.room.batches.Load()
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	if s.room.batches.Load() != batches {
		return true // another made room while we waited
	}
	freed, err := s.evict(limit/evictShare + 1)
	s.log.Warn("the disk is full: evicted objects that were not used for longest", "dir", s.dir, "limit", limit, "freed", freed, "error", err)
	return freed > 0
}

// withRoom calls fn, and once more if the disk was full and objects could be evicted.
func (s *Store) withRoom(fn func() error) error {
	err := fn()
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && s.makeRoom() {
		err = fn()
	}
	return err
}

// onDisk is the space that a file of this size takes, were it without holes.
func onDisk(size int64) int64 { return (size + diskBlock - 1) / diskBlock * diskBlock }

// account counts an object that came (n is 1) or went (-1).
func (s *Store) account(n, size int64) {
	s.objects.Add(n)
	s.bytes.Add(n * size)
	s.used.Add(n * onDisk(size))
	if n > 0 {
		s.nudgeIfOver()
	}
}

// grew counts bytes that were written to a file in the making.
func (s *Store) grew(bytes int64) {
	s.parts.bytes.Add(bytes)
	s.nudgeIfOver()
}

// total is the space that objects, files in the making and what is spare take.
func (s *Store) total() int64 { return s.used.Load() + s.parts.bytes.Load() + s.spare.Bytes() }

func (s *Store) nudgeIfOver() {
	if s.room.limit.Load() > 0 && s.room.isOver(s.total()) {
		s.room.nudge()
	}
}

func (r *room) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *room) isOver(used int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return used > r.limit.Load() && used >= r.stuck
}

func (r *room) setStuck(used int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stuck = used
}

// unpinned says that there may be something to evict again.
func (r *room) unpinned() {
	r.setStuck(0)
	r.nudge()
}

// beginPin says that what a root needs is needed from now on. end must be called when the
// pin is in the database, or was given up.
func (r *room) beginPin(root cid.Cid) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generation++
	r.pinning[root]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.pinning[root]--; r.pinning[root] == 0 {
			delete(r.pinning, root)
		}
	}
}

// moved says that a needed leaf may lie elsewhere from now on.
func (r *room) moved() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.generation++
}

func (r *room) isGeneration(generation uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.generation == generation
}

// wasPut says that a block was stored with this mode, and lies in this object. Without a limit
// the object's mode says of all but what was cached that it stays.
func (r *room) wasPut(object cid.Cid, mode os.FileMode) {
	if r.limit.Load() == 0 && mode == putMode {
		return
	}
	k, _ := keyOf(object)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.put[k] = time.Now()
}

// inherit says that what was Put as a leaf lies in this object from now on.
func (r *room) inherit(object, leaf cid.Cid) {
	from, _ := keyOf(leaf)
	to, _ := keyOf(object)
	r.mu.Lock()
	defer r.mu.Unlock()
	if at, ok := r.put[from]; ok && at.After(r.put[to]) {
		r.put[to] = at
	}
}

func (r *room) wasPutLately(k key) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.put[k]
	return ok
}

// wasPutSince says whether a block was Put at that time or later.
func (r *room) wasPutSince(k key, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.put[k]
	return ok && !at.Before(since)
}

// forgetPuts forgets what was Put too long ago.
func (r *room) forgetPuts() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, at := range r.put {
		if time.Since(at) > putGrace {
			delete(r.put, k)
		}
	}
}

// roots returns what is needed besides the pins in the database: the pins that are being
// made, and what keep says. They are of this generation.
func (r *room) roots() (roots []cid.Cid, keep func() []cid.Cid, generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for root := range r.pinning {
		roots = append(roots, root)
	}
	return roots, r.keep, r.generation
}
