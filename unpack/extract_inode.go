//go:build linux

package unpack

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/layer"
)

// ownerOnly is the mode of what is being made, until it has its owner.
const ownerOnly = 0o600

// makeNode makes a symbolic link, a device or a fifo.
func (x *extraction) makeNode(dir int, i int32) error {
	e := &x.index.Entries[i]
	if x.skipped(e) {
		x.log.Warn("device left out: none can be made in a user namespace", "path", x.index.Path(int(i)))
		return nil
	}
	err := x.place(dir, i, func() error {
		switch typ := e.Mode.Type(); {
		case typ == os.ModeSymlink:
			return unix.Symlinkat(e.Target, dir, e.Name)
		case typ == os.ModeNamedPipe:
			return unix.Mknodat(dir, e.Name, unix.S_IFIFO|ownerOnly, 0)
		case typ&os.ModeCharDevice != 0:
			return unix.Mknodat(dir, e.Name, unix.S_IFCHR|ownerOnly, device(e))
		default:
			return unix.Mknodat(dir, e.Name, unix.S_IFBLK|ownerOnly, device(e))
		}
	})
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	return x.describeName(dir, e)
}

// device returns the device number of an entry as the kernel keeps it: 12 bits of the major
// and 20 of the minor number.
func device(e *layer.Entry) int {
	major, minor := e.Device()
	return int(unix.Mkdev(major&0xfff, minor&0xfffff))
}

// skipped says whether an entry cannot be made here: in a user namespace, containerd leaves
// devices out, too.
func (x *extraction) skipped(e *layer.Entry) bool {
	return e.Mode&os.ModeDevice != 0 && userns.RunningInUserNS()
}

// describeName describes what has a name. That may be something else by now, if the layer
// has another path to the same place through a symbolic link: a link there must not make the
// layer describe what it leads to.
func (x *extraction) describeName(dir int, e *layer.Entry) error {
	fd, err := openAt(dir, e.Name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at it: %w", err)
	}
	if st.Mode&unix.S_IFMT != typeOf(e.Mode) {
		return fmt.Errorf("through a symbolic link of a lower layer another path of this one leads to the same place, and has made something else there: %w; overlayfs can have both", errdefs.ErrFailedPrecondition)
	}
	return x.describe(fd, e)
}

// describe gives what a descriptor stands for its owner, extended attributes, mode and time,
// in this order: the kernel drops capabilities and the setuid bit when the owner changes. It
// goes through /proc, since a descriptor without access, as links and devices have, takes
// nothing but an owner by itself.
func (x *extraction) describe(fd int, e *layer.Entry) error {
	if err := unix.Fchownat(fd, "", int(e.UID), int(e.GID), unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", e.UID, e.GID, err)
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	for _, a := range e.Xattrs() {
		if err := x.setXattr(path, e, a); err != nil {
			return fmt.Errorf("set extended attribute %q: %w", a.Name, err)
		}
	}
	if e.Mode.Type() != os.ModeSymlink { // which have no mode of their own
		if err := unix.Fchmodat(unix.AT_FDCWD, path, modeOf(e.Mode), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	mtime := mtimeOf(e)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{mtime, mtime}, 0); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// setXattr sets an extended attribute. What the file system or the type of the inode cannot
// have is left out, as containerd does.
func (x *extraction) setXattr(path string, e *layer.Entry, a layer.Xattr) error {
	err := unix.Setxattr(path, a.Name, []byte(a.Value), 0)
	onlyFiles := strings.HasPrefix(a.Name, "user.") && !e.Mode.IsRegular() && !e.Mode.IsDir()
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && onlyFiles {
		x.log.Debug("extended attribute left out", "name", a.Name, "file", e.Name, "error", err)
		return nil
	}
	return err
}

// typeOf returns the type that stat(2) says something of this mode has.
func typeOf(m os.FileMode) uint32 {
	switch typ := m.Type(); {
	case typ == 0:
		return unix.S_IFREG
	case typ == os.ModeDir:
		return unix.S_IFDIR
	case typ == os.ModeSymlink:
		return unix.S_IFLNK
	case typ == os.ModeNamedPipe:
		return unix.S_IFIFO
	case typ&os.ModeCharDevice != 0:
		return unix.S_IFCHR
	}
	return unix.S_IFBLK
}

// modeOf returns the mode for chmod(2).
func modeOf(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&os.ModeSetuid != 0 {
		mode |= unix.S_ISUID
	}
	if m&os.ModeSetgid != 0 {
		mode |= unix.S_ISGID
	}
	if m&os.ModeSticky != 0 {
		mode |= unix.S_ISVTX
	}
	return mode
}

// mtimeOf returns the time that containerd sets: the epoch for whatever is before it, or
// does not fit 64 bits of nanoseconds.
func mtimeOf(e *layer.Entry) unix.Timespec {
	t := time.Unix(e.Mtime, int64(e.MtimeNsec))
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return unix.Timespec{}
	}
	return unix.NsecToTimespec(t.UnixNano())
}

// setTime sets both times of a name: a layer knows no other than that of the last change.
func setTime(dir int, name string, t unix.Timespec) error {
	if err := unix.UtimesNanoAt(dir, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}
