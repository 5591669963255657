package objects

import (
	"errors"
	"fmt"
	"os"

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
	if err := errors.Join(os.Chmod(path, fetchedMode), s.place(path, f.Cid, f.Size, fetchedMode)); err != nil {
		return err
	}
	if s.doomed.add(loose...); len(loose) > 0 {
		s.room.moved()
	}
	s.markDirty()
	return nil
}
