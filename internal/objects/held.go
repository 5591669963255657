package objects

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Objects that were evicted may still take space: a mounted overlay holds the file that it
// has bound an inode to, and a process the one that it has open. The kernel does not say how
// much that is, but whether a file still exists can be asked by its handle, which holds
// nothing itself. The list is of this process: what an earlier one evicted is not counted.

// A heldInode is a file that was removed and existed still.
type heldInode struct {
	handle unix.FileHandle
	size   int64
}

// handleOf returns the handle of a file, or nil where there are none.
func handleOf(path string) *unix.FileHandle {
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
	if err != nil {
		return nil
	}
	return &h
}

// hold remembers a file that was removed, if something holds it.
func (s *Store) hold(h *unix.FileHandle, size int64) {
	if h == nil {
		return
	}
	if exists, known := s.exists(*h); exists && known {
		s.room.mu.Lock()
		defer s.room.mu.Unlock()
		s.room.held = append(s.room.held, heldInode{*h, size})
	}
}

// heldBytes counts what is held of the files that were removed: -1 if that is not known.
func (s *Store) heldBytes() (bytes int64) {
	if s.room.objects.Load() == 0 {
		return 0
	}
	h := handleOf(s.dir)
	if h == nil {
		return -1
	}
	if _, known := s.exists(*h); !known {
		return -1
	}
	s.room.mu.Lock()
	list := s.room.held
	s.room.held = nil
	s.room.mu.Unlock()
	still := list[:0]
	for _, i := range list {
		if exists, _ := s.exists(i.handle); exists {
			still = append(still, i)
			bytes += i.size
		}
	}
	s.room.mu.Lock()
	defer s.room.mu.Unlock()
	s.room.held = append(still, s.room.held...)
	return bytes
}

// exists says whether there still is a file with this handle. It needs a right that root
// has; without it, known is false.
func (s *Store) exists(h unix.FileHandle) (exists, known bool) {
	fd, err := unix.OpenByHandleAt(int(s.root.Fd()), h, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return false, errors.Is(err, unix.ESTALE)
	}
	_ = unix.Close(fd) // it was not even opened for reading
	return true, true
}
