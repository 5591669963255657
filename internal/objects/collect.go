package objects

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// collectBatch is how many objects Collect gathers before it removes them.
const collectBatch = 1024

// Collect removes, because somebody asks for it, all objects that nothing needs: what no pin has, nor what
// Limit's keep says, nor what used says is in use, which is asked of files, of their leaves, and of
// single blocks alike. What was Put or stored by Cache within putGrace stays, since a pin comes last.
// Blocks that are no raw leaves stay as well: it is not known when they came.
//
// removed is called with each object that has gone. Freed is the space they took on the disk; after an error
// some may be gone.
func (s *Store) Collect(ctx context.Context, used func(cid.Cid) bool, removed func(cid.Cid)) (freed int64, err error) {
	if !s.waitCounted(ctx.Done()) {
		if err := ctx.Err(); err != nil {
			return 0, fmt.Errorf("collect garbage: %w", err)
		}
		return 0, fmt.Errorf("collect garbage: %w", ErrClosed)
	}
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	defer s.gone()
	since := time.Now()
	for range maxPasses {
		n, ok, err := s.collect(ctx, since, used, removed)
		freed += n
		if err != nil {
			return freed, fmt.Errorf("collect garbage: %w", err)
		}
		if ok {
			break
		}
	}
	return freed, nil
}

// collect is one pass of Collect. ok is false if something has come to be needed meanwhile.
func (s *Store) collect(ctx context.Context, since time.Time, used func(cid.Cid) bool, removed func(cid.Cid)) (freed int64, ok bool, err error) {
	s.writeRecency()
	s.room.forgetPuts()
	needed, generation, err := s.needed(nil)
	if err != nil {
		return 0, false, err
	}
	var batch []victim
	flush := func() error {
		n, _, same, err := s.remove(batch, generation, ctx.Done())
		freed += n
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && s.isClosing() {
			err = ErrClosed
		}
		for _, v := range batch {
			if !s.hasObject(v.object) {
				removed(v.object)
			}
		}
		if batch = batch[:0]; err == nil && !same {
			err = errAgain
		}
		return err
	}
	err = s.walk(time.Time{}, func(path string, info os.FileInfo) error {
		c, err := cid.Decode(filepath.Base(path))
		if err != nil {
			return nil // none of ours
		}
		k, isKey := keyOf(c)
		if _, is := needed[k]; is || !isKey || used(c) || !s.isGarbage(c, info, since) {
			return nil
		}
		if batch = append(batch, victim{object: c, size: info.Size(), used: since, garbage: true}); len(batch) < collectBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if errors.Is(err, errAgain) {
		return freed, false, nil
	}
	return freed, true, err
}

// errAgain ends a pass of Collect whose idea of what is needed is of before.
var errAgain = errors.New("something has come to be needed")

// isGarbage says whether an object that nothing needs may go because somebody asked for it.
func (s *Store) isGarbage(object cid.Cid, info os.FileInfo, since time.Time) bool {
	k, _ := keyOf(object)
	if s.room.wasPutLately(k) {
		return false
	}
	if isFetched(info) {
		return info.ModTime().Before(since)
	}
	return lastUse(info).Before(since.Add(-putGrace))
}

// renew notes on an object that is put once more that it was put now, where nothing else remembers it:
// without a limit. It is written seldom, since it costs a system call.
func (s *Store) renew(object cid.Cid, mode os.FileMode) error {
	if mode != putMode || s.room.limit.Load() > 0 {
		return nil
	}
	info, err := os.Lstat(s.objectPath(object))
	if err != nil || lastUse(info).After(time.Now().Add(-putGrace/2)) {
		return nil // it has just gone, and then whoever looked for it finds out
	}
	times := []unix.Timespec{unix.NsecToTimespec(time.Now().UnixNano()), {Nsec: unix.UTIME_OMIT}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, s.objectPath(object), times, unix.AT_SYMLINK_NOFOLLOW); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("note that object %s was put: %w", object, err)
	}
	return nil
}
