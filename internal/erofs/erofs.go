// Package erofs writes metadata-only EROFS images.
package erofs

import (
	"errors"
	"io"
)

var errSkeleton = errors.New("erofs: not available yet")

// An Xattr is one extended attribute.
type Xattr struct{ Name, Value string }

// A Dirent is one name in a directory.
type Dirent struct {
	Name  string
	Inode uint32
}

// An Inode is what one inode of an image says.
type Inode struct {
	Mode      uint32
	UID, GID  uint32
	Mtime     int64
	MtimeNsec uint32
	Size      uint64
	Rdev      uint32
	Nlink     uint32
	Target    string
	Xattrs    []Xattr
	Entries   []Dirent
}

// A Tree is what Write reads. Inode 0 is the root.
type Tree interface {
	Len() int
	Inode(i int, n *Inode)
}

// Options are what a caller of Write may choose.
type Options struct{ UUID [16]byte }

// Write writes an image.
func Write(w io.Writer, t Tree, opts Options) error { return errSkeleton }
