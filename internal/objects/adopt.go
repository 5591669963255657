package objects

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Adopt makes the file at path an object, as Commit of a Partial would, but with no byte copied: path is on the store's file system, and
// whoever wrote the file has hashed each leaf of it. It is gone from path afterwards, unless there is an error. A pin that comes within putGrace finds it; without
// one it may be freed as what was fetched.
func (s *Store) Adopt(path string, f ipfs.File) error {
	err := f.Check()
	if err == nil {
		err = s.withRoom(func() error { return s.adopt(path, f) })
	}
	if err != nil {
		return fmt.Errorf("adopt file %s: %w", f.Cid, noSpace(s.dir, err))
	}
	return nil
}

func (s *Store) adopt(path string, f ipfs.File) error {
	info, err := os.Lstat(path)
	if err == nil && info.Size() != f.Size {
		err = fmt.Errorf("%w: it has %d bytes, want %d", ipfs.ErrFile, info.Size(), f.Size)
	}
	if err != nil {
		return err
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	loose, err := s.record(f)
	if err != nil {
		return err
	}
	s.room.wasPut(f.Cid, fetchedMode)
	// It came now, whenever it was begun: what counts and hashes objects goes by that.
	now := time.Now()
	if err := errors.Join(os.Chmod(path, fetchedMode), os.Chtimes(path, now, now), s.place(path, f.Cid, f.Size, fetchedMode)); err != nil {
		return err
	}
	if s.doomed.add(loose...); len(loose) > 0 {
		s.room.moved()
	}
	s.markDirty()
	return nil
}

// Hold says that an object, if it is here, is about to be pinned: it stays for that time.
func (s *Store) Hold(object cid.Cid) { s.room.wasPut(object, fetchedMode) }

// MakeRoom removes what can be done without, for somebody who found the disk full, and says whether it is worth to try again.
func (s *Store) MakeRoom() bool { return s.makeRoom() }
