//go:build linux

package unpack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/sysx"
	"github.com/moby/sys/userns"
	"golang.org/x/sys/unix"
)

// opaqueXattr names what marks a directory of an upper layer that hides what lies below it,
// for overlayfs. In a user namespace overlays are mounted with userxattr.
func opaqueXattr() string {
	if userns.RunningInUserNS() {
		return "user.overlay.opaque"
	}
	return "trusted.overlay.opaque"
}

// makeDir makes the directory of an entry, or keeps the one that is there. It gets its own
// owner, mode and attributes when everything in it was made (finishDirs): until then nobody
// else has access to a new one, and nothing is inherited from what it will have.
func (x *extraction) makeDir(dir int, i int32) error {
	e := &x.index.Entries[i]
	const private = 0o700
	err := unix.Mkdirat(dir, e.Name, private)
	if errors.Is(err, unix.EEXIST) {
		stays, serr := x.stays(dir, i)
		if serr != nil {
			return serr
		}
		if stays {
			return x.keepDir(dir, i)
		}
		if err := x.remove(dir, i); err != nil {
			return err
		}
		err = unix.Mkdirat(dir, e.Name, private)
	}
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if !e.Implied && !e.KeepXattrs && !(e.Opaque && x.target.overlay) {
		return nil
	}
	fd, err := openAt(dir, e.Name, openDirFlags, 0)
	if err != nil {
		return fmt.Errorf("open new directory: %w", err)
	}
	defer unix.Close(fd)
	if e.Opaque && x.target.overlay {
		if err := x.makeOpaque(fd, i); err != nil {
			return err
		}
	}
	if e.Implied || e.KeepXattrs {
		return x.inherit(fd, i)
	}
	return nil
}

// stays says whether what is in the way of a directory serves as it: a directory always, and
// for an implied one also a symbolic link that leads to a directory below the root.
func (x *extraction) stays(dir int, i int32) (bool, error) {
	e := &x.index.Entries[i]
	var st unix.Stat_t
	if err := unix.Fstatat(dir, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return false, fmt.Errorf("look what is in the way: %w", err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if e.Implied {
			x.mtimes[i] = st.Mtim
		}
		return true, nil
	case unix.S_IFLNK:
		return e.Implied && x.follow(i), nil
	}
	return false, nil
}

// isLink says whether a symbolic link is at the path of an entry.
func (x *extraction) isLink(dirs *dirs, i int32) bool {
	e := &x.index.Entries[i]
	dir, err := dirs.open(e.Parent)
	var st unix.Stat_t
	return err == nil && unix.Fstatat(dir, e.Name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

// follow finds the directory that a symbolic link in the place of an entry stands for, as
// containerd does, and says whether there is one.
func (x *extraction) follow(i int32) bool {
	root := filepath.Clean(x.target.dir)
	full, err := fs.RootPath(root, x.where(i))
	if err != nil {
		return false // a loop, or a way through something that is no directory
	}
	to := strings.TrimPrefix(strings.TrimPrefix(full, root), "/")
	if to == "" {
		to = "."
	}
	fd, err := openBelow(x.fd, to)
	if err != nil {
		return false // also if something has changed meanwhile: then nothing is followed
	}
	unix.Close(fd)
	x.moved[i] = to
	return true
}

// keepDir does what an entry asks of a directory that was there before.
func (x *extraction) keepDir(dir int, i int32) error {
	if !x.index.Entries[i].Opaque {
		return nil
	}
	fd, err := x.openDir(dir, i)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer unix.Close(fd)
	return x.makeOpaque(fd, i)
}

// makeOpaque hides what lies below a directory: by a mark for overlayfs; elsewhere, by
// removing what is in it, before anything of this layer is.
func (x *extraction) makeOpaque(fd int, i int32) error {
	if x.target.overlay {
		if err := unix.Fsetxattr(fd, opaqueXattr(), []byte("y"), 0); err != nil {
			return fmt.Errorf("set %s: %w", opaqueXattr(), err)
		}
		return nil
	}
	path := x.where(i)
	dir, err := x.root.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := x.root.RemoveAll(path + "/" + name); err != nil {
			return err
		}
	}
	return nil
}

// inherit gives a directory that was just made, for the sake of what is in it, what the
// layers below have at its path, as containerd does: the first that has something decides,
// each by itself.
func (x *extraction) inherit(fd int, i int32) error {
	path := x.where(i)
	for _, lower := range x.target.lower {
		from, err := fs.RootPath(lower, path)
		if errors.Is(err, unix.ENOTDIR) {
			break
		}
		if err != nil {
			return fmt.Errorf("find the directory below: %w", err)
		}
		var st unix.Stat_t
		err = unix.Lstat(from, &st)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			return x.takeOver(fd, i, from, &st)
		}
		if err != nil && !errors.Is(err, unix.ENOTDIR) {
			return fmt.Errorf("find the directory below: stat %s: %w", from, err)
		}
		break // something else is there, and hides what lies further below
	}
	return x.ownImplied(fd, i)
}

// takeOver copies owner, mode, time and extended attributes of the directory from.
func (x *extraction) takeOver(fd int, i int32, from string, st *unix.Stat_t) error {
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return fmt.Errorf("set owner of %s: %w", from, err)
	}
	if err := unix.Fchmod(fd, st.Mode&^unix.S_IFMT); err != nil {
		return fmt.Errorf("set mode of %s: %w", from, err)
	}
	if x.index.Entries[i].Implied {
		x.mtimes[i] = st.Mtim
	}
	names, err := sysx.LListxattr(from)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("list extended attributes of %s: %w", from, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.overlay.") {
			continue // of that layer alone
		}
		value, err := sysx.LGetxattr(from, name)
		if err == nil {
			err = unix.Fsetxattr(fd, name, value, unix.XATTR_CREATE)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("copy extended attribute %s of %s: %w", name, from, err)
		}
	}
	return nil
}

// ownImplied gives a directory that nobody describes mode 0755, and the group that the
// index knows. If that is none, and the directory above was itself made after one below,
// the kernel has given it that one's group, if it had the setgid bit.
func (x *extraction) ownImplied(fd int, i int32) error {
	e := &x.index.Entries[i]
	up := &x.index.Entries[e.Parent]
	if e.GID != 0 || !up.Implied && !up.KeepXattrs {
		if err := unix.Fchown(fd, 0, int(e.GID)); err != nil {
			return fmt.Errorf("set owner: %w", err)
		}
	}
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

// finishDirs gives the directories owner, attributes, mode and time, when all in them was
// made. Implied ones get the time of what they stand for, or none: nobody states theirs.
func (x *extraction) finishDirs(ctx context.Context) error {
	dirs := newDirs(x)
	defer dirs.close()
	for i := int32(1); int(i) < len(x.index.Entries); i++ {
		if i%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		e := &x.index.Entries[i]
		if _, elsewhere := x.moved[i]; elsewhere || !e.Mode.IsDir() {
			continue
		}
		dir, err := dirs.open(e.Parent)
		if err != nil {
			return x.at(i, err)
		}
		if e.Implied {
			err = setTime(dir, e.Name, x.mtimes[i])
		} else {
			err = x.describeName(dir, e)
		}
		if err != nil {
			return x.at(i, err)
		}
	}
	return nil
}
