package objects

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
)

// markDirty says that something was stored: it will be synced before long.
func (s *Store) markDirty() {
	s.changed.Store(true)
	select {
	case s.dirty <- struct{}{}:
	default:
	}
}

// maintain syncs within syncInterval of every change.
func (s *Store) maintain() {
	for {
		select {
		case <-s.closing:
			return
		case <-s.dirty:
		}
		timer := time.NewTimer(syncInterval)
		select {
		case <-s.closing:
			timer.Stop()
			return
		case <-timer.C:
		}
		if err := s.sync(); err != nil {
			s.log.Error("cannot make the store durable; trying again", "dir", s.dir, "error", noSpace(s.dir, err))
			s.markDirty()
		}
	}
}

// sync makes all that was stored before durable, and then these entries.
func (s *Store) sync(entries ...entry) error {
	s.syncing.Lock()
	defer s.syncing.Unlock()
	if !s.changed.Swap(false) && len(entries) == 0 {
		return nil
	}
	start := time.Now()
	leaves := s.doomed.take()
	err := unix.Syncfs(int(s.root.Fd()))
	if err != nil {
		err = fmt.Errorf("syncfs: %w", err)
	} else {
		entries = append(entries, entry{bucketState, []byte(stateSync), encodeInt(start.UnixNano())})
		err = s.db.flush(entries...)
	}
	if err != nil {
		s.doomed.add(leaves...)
		s.changed.Store(true)
		return err
	}
	if !s.isCounted() && !s.isClosing() {
		s.doomed.add(leaves...) // count has them removed
		if s.isCounted() {
			s.markDirty()
		}
		return nil
	}
	if err := s.removeLoose(leaves); err != nil {
		s.log.Warn("cannot remove second copies of leaves; trying again at the next start", "dir", s.dir, "error", err)
	}
	return nil
}

// doomed are the digests of leaves whose loose copies are no longer needed once the
// objects that hold them too are on disk. They are also in bucketLoose.
type doomed struct {
	mu     sync.Mutex
	leaves []string
}

func (d *doomed) add(leaves ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaves = append(d.leaves, leaves...)
}

func (d *doomed) any() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.leaves) > 0
}

func (d *doomed) take() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	leaves := d.leaves
	d.leaves = nil
	return leaves
}

// removeLoose removes the loose copies of leaves that an object holds too.
func (s *Store) removeLoose(leaves []string) error {
	if len(leaves) == 0 {
		return nil
	}
	entries := make([]entry, 0, len(leaves))
	for _, digest := range leaves {
		entries = append(entries, entry{bucket: bucketLoose, key: []byte(digest)})
		if err := s.removeSecond(digest); err != nil {
			return err
		}
	}
	return s.db.flush(entries...)
}

// removeSecond removes the loose copy of a leaf if a larger object holds the leaf too. Nothing
// is evicted or put meanwhile, and who was told that the leaf is there is owed the object
// from now on.
func (s *Store) removeSecond(digest string) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	refs, err := s.refs(digest)
	if err != nil {
		return err
	}
	for _, r := range refs {
		if s.hasObject(r.object) {
			leaf := ipfs.RawCid(digest)
			s.room.inherit(r.object, leaf)
			if info, err := os.Lstat(s.objectPath(leaf)); err == nil && !isFetched(info) {
				if err := s.setMode(r.object, putMode); err != nil {
					return err
				}
			}
			s.unlink(leaf)
			return nil
		}
	}
	return nil
}

// unlink removes an object. Mounts that have it open keep reading it.
func (s *Store) unlink(c cid.Cid) {
	info, err := os.Lstat(s.objectPath(c))
	if err == nil && os.Remove(s.objectPath(c)) == nil {
		s.account(-1, info.Size())
	}
}

func encodeInt(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func decodeInt(b []byte) (int64, bool) {
	if len(b) != 8 {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b)), true
}
