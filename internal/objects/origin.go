package objects

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/ipfs/go-cid"
)

// An object's mode says where it came from, so that this is known after any crash. What was
// Put may be needed by a pin that is to come, and may be nowhere else; what was fetched can be
// fetched again. The kernel makes no difference: containers see the modes of their image, and
// nobody writes to an object. No umask makes fetchedMode of putMode, as processes before had it.
const (
	putMode     os.FileMode = 0o444
	fetchedMode os.FileMode = 0o640
)

func isFetched(info fs.FileInfo) bool { return info.Mode().Perm() == fetchedMode }

// setMode notes that an object that is here was stored once more. Having been Put, it stays
// that.
func (s *Store) setMode(object cid.Cid, mode os.FileMode) error {
	if mode != putMode {
		return nil
	}
	info, err := os.Lstat(s.objectPath(object))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !isFetched(info) {
		return nil
	}
	if err == nil {
		err = os.Chmod(s.objectPath(object), mode)
	}
	return err
}

// mayFree says whether an object may be removed because who used it has gone. With a limit that
// is what may be evicted as well; without one, only what was fetched, and not stored again since.
func (s *Store) mayFree(object cid.Cid, info fs.FileInfo, since time.Time) bool {
	k, _ := keyOf(object)
	if s.room.limit.Load() == 0 {
		return isFetched(info) && !s.room.wasPutSince(k, since)
	}
	return !s.room.wasPutLately(k)
}
