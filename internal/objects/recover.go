package objects

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/ipfs/go-cid"
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
)

// clockSlack is how far the time stamps of a file system may lag behind the clock.
const clockSlack = 2 * time.Second

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
		s.touch() // and now it is known to be right: next time, do less
	}
	if clean || !known {
		s.loadCounts(state)
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
		s.touch()
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
	if ok1 && ok2 || len(state) == 0 {
		s.objects.Store(objects)
		s.bytes.Store(bytes)
		close(s.counted)
	}
}

// markClean says that nothing has to be looked at when the store is opened next.
func (s *Store) markClean() error {
	var objects, bytes []byte // nil, so removed: to be counted again
	select {
	case <-s.counted:
		objects, bytes = encodeInt(s.objects.Load()), encodeInt(s.bytes.Load())
	default:
	}
	return s.db.flush(
		entry{bucketState, []byte(stateClean), []byte{1}},
		entry{bucketState, []byte(stateObjects), objects},
		entry{bucketState, []byte(stateBytes), bytes})
}

// count adds up what was there when the store was opened, by the clock that the kernel
// stamps files with: time.Now is ahead of it, and what came right after would be counted
// twice.
func (s *Store) count(opened time.Time) {
	done := errors.New("closing")
	var objects, bytes int64
	err := s.walk(time.Time{}, func(_ string, info os.FileInfo) error {
		select {
		case <-s.closing:
			return done
		default:
		}
		if changeTime(info).Before(opened) { // what came later was counted then
			objects++
			bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		if !errors.Is(err, done) {
			s.log.Warn("cannot count what is in the store", "dir", s.dir, "error", err)
		}
		return
	}
	s.objects.Add(objects)
	s.bytes.Add(bytes)
	close(s.counted)
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
	shards, err := os.ReadDir(s.ObjectsDir())
	if err != nil {
		return err
	}
	for _, shard := range shards {
		dir := filepath.Join(s.ObjectsDir(), shard.Name())
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
func (s *Store) rehash(since time.Time) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	err := s.walk(since, func(path string, info os.FileInfo) error {
		if changeTime(info).Before(since) {
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

// verifyObject hashes a file as the importer of the profile would, and compares with
// the CID it is named after.
func verifyObject(path string) error {
	c, err := cid.Decode(filepath.Base(path))
	if err != nil {
		return fmt.Errorf("its name is no CID: %w", ipfs.ErrHash)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if isRaw(c) {
		data, err := io.ReadAll(io.LimitReader(f, ipfs.MaxBlock+1))
		if err != nil {
			return err
		}
		return ipfs.Verify(c, data)
	}
	if info.Size() <= ipfs.LeafSize { // such a file is a raw leaf, never this
		return fmt.Errorf("%d bytes: %w", info.Size(), ipfs.ErrHash)
	}
	leaves, err := hashLeaves(f, info.Size())
	if err != nil {
		return err
	}
	return ipfs.File{Cid: c, Size: info.Size(), Leaves: leaves}.Check()
}

func hashLeaves(r io.Reader, size int64) (string, error) {
	var leaves strings.Builder
	buf := make([]byte, ipfs.LeafSize)
	for left := size; left > 0; left -= ipfs.LeafSize {
		b := buf[:min(left, ipfs.LeafSize)]
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		block, err := ipfs.NewBlock(cid.Raw, b)
		if err != nil {
			return "", err
		}
		digest, _ := digestOf(block.Cid)
		leaves.WriteString(digest)
	}
	return leaves.String(), nil
}
