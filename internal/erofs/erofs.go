// Package erofs writes metadata-only EROFS images: every inode of a tree with all its
// attributes, and for regular files a size but no data. Such an image is the metadata
// layer of an overlay whose data-only layers hold the files.
//
// # Format
//
// Blocks have 4096 bytes. Block 0 holds the superblock and nothing else. Inodes follow
// in the order of the tree, in slots of 32 bytes (the number of the first slot is the
// nid), always in the extended form: 64 bytes, then the extended attributes, all
// inline, then what is inline of the data:
//
//   - regular files are chunk-based with null chunks, one chunk for all up to 8 TiB,
//     and empty ones are plain;
//   - the target of a symlink, and the last block of a directory, are inline when they
//     are at most inlineMax bytes, and then never cross a block; otherwise they have
//     blocks of their own, after the inodes;
//   - directories hold their names sorted by bytes, with "." and ".." where they sort.
//
// Kernels from 5.16 on read the result. The image depends on nothing but the tree and
// the options: equal input gives equal bytes.
//
// # Algorithm
//
// Write asks the tree for its inodes in three passes: to check them and give each its
// place, to write them, and to write the blocks of directories. It holds nine bytes an
// inode, and one directory at a time.
//
// # Limits
//
// A regular file has at most MaxFileSize bytes. An extended attribute has at most 65,535
// bytes, all of one inode 262,148 bytes with their names, and only the namespaces user,
// trusted, security and POSIX ACLs exist. A name has 255 bytes, a target 4,095.
//
// # Concurrency
//
// Write has no state of its own and starts no goroutines.
package erofs

import (
	"errors"
	"io"
)

// MaxFileSize is the size in bytes above which a regular file is refused: 2 PiB, the
// size whose chunk table takes a quarter of a block.
const MaxFileSize = maxChunks << (maxChunkBits + blockBits)

var (
	// ErrTree says that the inodes do not make a tree that can be written.
	ErrTree = errors.New("not a tree that EROFS can hold")
	// ErrXattr says that EROFS cannot hold an extended attribute.
	ErrXattr = errors.New("extended attribute that EROFS cannot hold")
	// ErrTooLarge says that an inode or the image exceeds a limit of the format.
	ErrTooLarge = errors.New("exceeds a limit of EROFS")
)

// An Xattr is one extended attribute: its full name, and any bytes.
type Xattr struct{ Name, Value string }

// A Dirent is one name in a directory, and the number of its inode.
type Dirent struct {
	Name  string
	Inode uint32
}

// An Inode is what one inode of an image says.
type Inode struct {
	Mode      uint32 // st_mode: type and permission bits
	UID, GID  uint32
	Mtime     int64 // seconds since 1970, may be negative
	MtimeNsec uint32
	Size      uint64 // regular files
	Rdev      uint32 // devices, as makedev of the kernel (new_encode_dev) puts it in 32 bits
	Nlink     uint32 // all but directories, whose links are counted
	Target    string // symlinks
	Xattrs    []Xattr
	Entries   []Dirent // directories: without "." and "..", sorted by the bytes of the names
}

// A Tree is what Write reads. Inode 0 is the root directory. Each other inode is named
// by at least one entry, a directory by exactly one.
type Tree interface {
	// Len returns the number of inodes.
	Len() int
	// Inode fills n, which is zero but for the capacity of its slices, with inode i.
	// It must say the same each time it is asked; n is good until the next call.
	Inode(i int, n *Inode)
}

// Inodes is a Tree in memory.
type Inodes []Inode

// Len implements Tree.
func (t Inodes) Len() int { return len(t) }

// Inode implements Tree.
func (t Inodes) Inode(i int, n *Inode) { *n = t[i] }

// Options are what a caller of Write may choose.
type Options struct {
	// UUID tells file systems apart. Overlayfs wants one that is not zero.
	UUID [16]byte
}

// Write writes the image of a tree to w, from front to back. The error is ErrTree,
// ErrXattr or ErrTooLarge, wrapped with the inode, or that of w.
func Write(w io.Writer, t Tree, opts Options) error {
	img := newImage(t)
	if err := img.plan(); err != nil {
		return err
	}
	out := newOutput(w)
	img.writeSuperblock(out, opts)
	if err := img.writeInodes(out); err != nil {
		return err
	}
	if err := img.writeData(out); err != nil {
		return err
	}
	return out.flush()
}
