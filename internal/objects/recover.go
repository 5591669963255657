package objects

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
)

// Keys of bucketState.
const (
	stateBoot    = "boot"    // ID of the boot during which the store was last open
	stateSync    = "sync"    // when the last sync began, in ns since 1970
	stateClean   = "clean"   // there if the store was closed
	stateObjects = "objects" // Stats.Objects when it was closed
	stateBytes   = "bytes"   // Stats.Bytes when it was closed
	stateUsed    = "used"    // Space.Used when it was closed
)

// clockSlack is how far the time stamps of a file system may lag behind the clock.
const clockSlack = 2 * time.Second

// writeSlack is longer than any write to an object takes.
const writeSlack = 10 * time.Minute

// recover brings the store into order after whatever ended its last use.
func (s *Store) recover() error {
	state := make(map[string]string)
	err := s.db.scan(bucketState, nil, func(key, value []byte) bool {
		state[string(key)] = string(value)
		return true
	})
	if err != nil {
		return err
	}
	synced, known := decodeInt([]byte(state[stateSync]))
	if !known { // a new store
		synced = time.Now().UnixNano()
	}
	_, clean := state[stateClean]
	if known && !clean && state[stateBoot] != s.bootID {
		since := time.Unix(0, synced).Add(-clockSlack)
		s.log.Warn("the machine stopped while the store was open: hashing again what came after the last sync", "dir", s.dir, "since", since)
		if err := s.rehash(since); err != nil {
			return fmt.Errorf("hash objects again: %w", err)
		}
		s.markDirty() // and now it is known to be right: next time, do less
	}
	if clean || !known {
		s.loadCounts(state)
	} else if _, err := s.removeDangling(); err != nil {
		return err
	}
	var loose []string
	err = s.db.scan(bucketLoose, nil, func(key, _ []byte) bool {
		loose = append(loose, string(key))
		return true
	})
	if err != nil {
		return err
	}
	if s.doomed.add(loose...); len(loose) > 0 {
		s.markDirty()
	}
	return s.db.flush(
		entry{bucketState, []byte(stateBoot), []byte(s.bootID)},
		entry{bucketState, []byte(stateSync), encodeInt(synced)},
		entry{bucket: bucketState, key: []byte(stateClean)},
	)
}

// loadCounts takes over what Close counted. A store that was never opened has nothing.
func (s *Store) loadCounts(state map[string]string) {
	objects, ok1 := decodeInt([]byte(state[stateObjects]))
	bytes, ok2 := decodeInt([]byte(state[stateBytes]))
	used, ok3 := decodeInt([]byte(state[stateUsed]))
	if ok1 && ok2 && ok3 || len(state) == 0 {
		s.objects.Store(objects)
		s.bytes.Store(bytes)
		s.used.Store(used)
		close(s.counted)
	}
}

// markClean says that nothing has to be looked at when the store is opened next.
func (s *Store) markClean() error {
	var objects, bytes, used []byte // nil, so removed: to be counted again
	if s.isCounted() && !s.recount.Load() {
		objects, bytes, used = encodeInt(s.objects.Load()), encodeInt(s.bytes.Load()), encodeInt(s.used.Load())
	}
	return s.db.flush(
		entry{bucketState, []byte(stateClean), []byte{1}},
		entry{bucketState, []byte(stateObjects), objects},
		entry{bucketState, []byte(stateBytes), bytes},
		entry{bucketState, []byte(stateUsed), used})
}

// count adds up what was there when the store was opened, by the clock that the kernel
// stamps files with: time.Now is ahead of it, and what came right after would be counted
// twice.
func (s *Store) count(opened time.Time) {
	done := errors.New("closing")
	var objects, bytes, used int64
	err := s.walk(time.Time{}, func(_ string, info os.FileInfo) error {
		select {
		case <-s.closing:
			return done
		default:
		}
		// What came later was written later too, since partial files do not outlive Open, and
		// was counted then. The change time moves with each Touch.
		if info.ModTime().Before(opened) {
			objects++
			bytes += info.Size()
			used += onDisk(info.Size())
		}
		return nil
	})
	if errors.Is(err, done) {
		return
	}
	if err != nil { // better a count that is too low than no limit
		s.log.Warn("cannot count all that is in the store; counting again at the next start", "dir", s.dir, "error", err)
		s.recount.Store(true)
	}
	s.objects.Add(objects)
	s.bytes.Add(bytes)
	s.used.Add(used)
	close(s.counted)
	if s.doomed.any() {
		s.markDirty()
	}
}

// fileClock is the time that the kernel stamps changes of files with.
func fileClock() (time.Time, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &now); err != nil {
		return time.Time{}, fmt.Errorf("read the clock: %w", err)
	}
	return time.Unix(now.Unix()), nil
}

// walk calls fn for each object in a directory that has changed since.
func (s *Store) walk(since time.Time, fn func(path string, info os.FileInfo) error) error {
	all := filepath.Join(s.ObjectsDir(), Hidden)
	shards, err := os.ReadDir(all)
	if err != nil {
		return err
	}
	for _, shard := range shards {
		dir := filepath.Join(all, shard.Name())
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if !info.IsDir() || info.ModTime().Before(since) {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err == nil {
				err = fn(filepath.Join(dir, e.Name()), info)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// rehash hashes every object that is newer than since, and removes those that are wrong.
// Newer is what was changed later, if only by Touch, and written not long before: a write
// may have begun, and been stamped, and ended only after a sync that took its time.
func (s *Store) rehash(since time.Time) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	err := s.walk(since, func(path string, info os.FileInfo) error {
		if changeTime(info).Before(since) || info.ModTime().Before(since.Add(-writeSlack)) {
			return nil
		}
		g.Go(func() error {
			err := verifyObject(path)
			if !isWrong(err) {
				return err
			}
			s.log.Warn("removed an object that did not survive the end of the machine", "path", path, "error", err)
			return os.Remove(path)
		})
		return nil
	})
	return errors.Join(err, g.Wait())
}

// isWrong says whether err is about what an object holds, not about reading it.
func isWrong(err error) bool {
	return errors.Is(err, ipfs.ErrHash) || errors.Is(err, ipfs.ErrFile) || errors.Is(err, ipfs.ErrTooLarge)
}

func changeTime(info os.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return time.Now() // unknown: as if new
}
