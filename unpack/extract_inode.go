//go:build linux

package unpack

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

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
	return x.describe(dir, e)
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

// describe gives a name its owner, extended attributes, mode and time, in this order: the
// kernel drops capabilities and the setuid bit when the owner changes.
func (x *extraction) describe(dir int, e *layer.Entry) error {
	if err := unix.Fchownat(dir, e.Name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner %d:%d: %w", e.UID, e.GID, err)
	}
	for _, a := range e.Xattrs() {
		if err := x.setXattr(dir, e, a); err != nil {
			return fmt.Errorf("set extended attribute %q: %w", a.Name, err)
		}
	}
	if e.Mode.Type() != os.ModeSymlink { // which have no mode of their own
		if err := unix.Fchmodat(dir, e.Name, modeOf(e.Mode), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return setTime(dir, e.Name, mtimeOf(e))
}

// setXattr sets an extended attribute by a path through /proc: what has no descriptor has
// them too. What the file system or the type of the inode cannot have is left out, as
// containerd does.
func (x *extraction) setXattr(dir int, e *layer.Entry, a layer.Xattr) error {
	err := unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", dir, e.Name), a.Name, []byte(a.Value), 0)
	onlyFiles := strings.HasPrefix(a.Name, "user.") && !e.Mode.IsRegular() && !e.Mode.IsDir()
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && onlyFiles {
		x.log.Debug("extended attribute left out", "name", a.Name, "file", e.Name, "error", err)
		return nil
	}
	return err
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
