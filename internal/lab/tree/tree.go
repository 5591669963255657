// Package tree is the oracle of the tests: it reads everything that can be seen of a
// directory tree, and tells two trees apart.
//
// Read walks with openat(2) from directory to directory, so that paths may be longer
// than the kernel takes in one call. It holds one descriptor per level. Diff leaves
// out what no container can rely on: the size and link count of directories.
//
// Nothing here knows how a tree was made: the tree that stock overlayfs shows is what
// the one of ipcs must equal.
package tree

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// An Entry is one path and all that can be seen of it.
type Entry struct {
	Path     string // "." for the root
	Mode     uint32 // type and permissions, as st_mode
	UID, GID uint32
	Size     int64 // 0 for directories
	Mtime    unix.Timespec
	Target   string            // symbolic links
	Rdev     uint64            // devices
	Nlink    uint64            // 0 for directories
	Link     string            // first path, in order, of the same inode; "" for directories
	Xattrs   map[string]string // values may be binary
	Sum      string            // sha256 of a regular file's content
}

// IsDir says whether the entry is a directory.
func (e *Entry) IsDir() bool { return e.Mode&unix.S_IFMT == unix.S_IFDIR }

// Read returns every path below root, and root itself, in order of the walk: each
// directory before what is in it, names in order.
func Read(root string) ([]Entry, error) {
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(fd)
	w := walker{inodes: map[inode]string{}, buf: make([]byte, 1<<20)}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("stat %s: %w", root, err)
	}
	e := entry(".", &st)
	if e.Xattrs, err = w.xattrs(fd, "."); err != nil {
		return nil, fmt.Errorf("xattrs of %s: %w", root, err)
	}
	w.entries = append(w.entries, e)
	if err := w.dir(fd, ""); err != nil {
		return nil, fmt.Errorf("read tree %s: %w", root, err)
	}
	return w.entries, nil
}

type inode struct{ dev, ino uint64 }

type walker struct {
	entries []Entry
	inodes  map[inode]string // first path of each
	buf     []byte
}

// dir adds what is in the directory that fd stands for.
func (w *walker) dir(fd int, prefix string) error {
	names, err := w.names(fd)
	if err != nil {
		return fmt.Errorf("list %q: %w", prefix, err)
	}
	for _, name := range names {
		if err := w.child(fd, name, path.Join(prefix, name)); err != nil {
			return fmt.Errorf("%q: %w", path.Join(prefix, name), err)
		}
	}
	return nil
}

func (w *walker) names(fd int) ([]string, error) {
	var names []string
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil || n == 0 {
			slices.Sort(names)
			return names, err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

func (w *walker) child(dir int, name, full string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("stat: %w", err)
	}
	e := entry(full, &st)
	var err error
	if e.Xattrs, err = w.xattrs(dir, name); err != nil {
		return fmt.Errorf("xattrs: %w", err)
	}
	if e.IsDir() {
		w.entries = append(w.entries, e)
		return w.descend(dir, name, full)
	}
	key := inode{st.Dev, st.Ino}
	if _, ok := w.inodes[key]; !ok {
		w.inodes[key] = full
	}
	e.Link = w.inodes[key]
	switch e.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		e.Target, err = w.readlink(dir, name)
	case unix.S_IFREG:
		e.Sum, err = w.sum(dir, name)
	}
	w.entries = append(w.entries, e)
	return err
}

func (w *walker) descend(dir int, name, full string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer unix.Close(fd)
	return w.dir(fd, full)
}

func entry(full string, st *unix.Stat_t) Entry {
	e := Entry{Path: full, Mode: st.Mode, UID: st.Uid, GID: st.Gid, Mtime: st.Mtim}
	switch {
	case e.IsDir():
		return e
	case e.Mode&unix.S_IFMT == unix.S_IFCHR, e.Mode&unix.S_IFMT == unix.S_IFBLK:
		e.Rdev = st.Rdev
	}
	e.Size, e.Nlink = st.Size, uint64(st.Nlink)
	return e
}

// xattrs reads by a path through /proc: there is no lgetxattrat(2) everywhere, and
// descriptors of links and devices cannot be had.
func (w *walker) xattrs(dir int, name string) (map[string]string, error) {
	full := fmt.Sprintf("/proc/self/fd/%d/%s", dir, name)
	n, err := unix.Llistxattr(full, w.buf)
	if err != nil || n == 0 {
		return nil, err
	}
	names := bytes.Split(bytes.TrimSuffix(bytes.Clone(w.buf[:n]), []byte{0}), []byte{0})
	all := map[string]string{}
	for _, x := range names {
		n, err := unix.Lgetxattr(full, string(x), w.buf)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x, err)
		}
		all[string(x)] = string(w.buf[:n])
	}
	return all, nil
}

func (w *walker) readlink(dir int, name string) (string, error) {
	n, err := unix.Readlinkat(dir, name, w.buf)
	if err != nil {
		return "", fmt.Errorf("readlink: %w", err)
	}
	return string(w.buf[:n]), nil
}

func (w *walker) sum(dir int, name string) (string, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("open: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, w.buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
