//go:build linux

package unpack

import (
	"context"
	"errors"
	"fmt"
	iofs "io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/sysx"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// indexParameter says whether overlays have an index when their options do not.
const indexParameter = "/sys/module/overlay/parameters/index"

// upperDir returns the directory with all that upper shows beyond lower: the upper directory
// of an overlay on lower's directories, or the first of a view on them. It is empty if the
// mounts are something else.
func upperDir(lower, upper []mount.Mount) string {
	below, ok := stackOf(lower)
	if !ok || below.upper != "" {
		return ""
	}
	above, ok := stackOf(upper)
	if !ok || !above.overlay || !slices.Equal(above.data, below.data) {
		return ""
	}
	if above.upper != "" {
		if slices.Equal(above.dirs, below.dirs) && !hasIndex(above.options) {
			return above.upper
		}
		return ""
	}
	if len(above.dirs) == len(below.dirs)+1 && slices.Equal(above.dirs[1:], below.dirs) {
		return above.dirs[0]
	}
	return ""
}

// hasIndex says whether an overlay keeps hard links together when it copies a file up. Then
// a change of one name is one of its other names, too, of which the upper directory has none.
func hasIndex(options []string) bool {
	for _, o := range options {
		switch o {
		case "index=off":
			return false
		case "index=on", "nfs_export=on":
			return true
		}
	}
	set, err := os.ReadFile(indexParameter)
	return err == nil && strings.TrimSpace(string(set)) == "Y"
}

// Extended attributes by which overlayfs says things of directories. With the mount option
// userxattr it has them in the name space of users.
const (
	redirectAttr = "overlay.redirect" // it shows another directory of the layers below
	opaqueAttr   = "overlay.opaque"   // "y": it shows nothing of the layers below
)

// tellsAll looks for what makes an upper directory depend on more than the tree that it lies
// on, and returns the first such thing: a directory that was renamed without its contents,
// or one whose whiteouts are of a kind that is not read here.
func tellsAll(dir string) (why string, err error) {
	err = filepath.WalkDir(dir, func(path string, d iofs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if why, err = untold(path); err == nil && why != "" {
			err = iofs.SkipAll
		}
		return err
	})
	return why, err
}

// untold returns what an upper directory shows that is not in it, if that is anything.
func untold(path string) (why string, err error) {
	redirect, err := overlayXattr(path, redirectAttr)
	if err != nil {
		return "", err
	}
	if redirect != "" {
		return fmt.Sprintf("%s was renamed", path), nil
	}
	opaque, err := overlayXattr(path, opaqueAttr)
	if err != nil {
		return "", err
	}
	if opaque != "" && opaque != "y" {
		return fmt.Sprintf("%s has the mark %q", path, opaque), nil
	}
	return "", nil
}

// overlayXattr reads an attribute of overlayfs from either name space.
func overlayXattr(path, name string) (string, error) {
	for _, space := range []string{"trusted.", "user."} {
		value, err := sysx.LGetxattr(path, space+name)
		switch {
		case err == nil && len(value) > 0:
			return string(value), nil
		case err != nil && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP):
			return "", fmt.Errorf("read %s of %s: %w", space+name, path, err)
		}
	}
	return "", nil
}

// walk finds the changes in the upper directory, in the order of a walk of the whole tree. It
// reads no more of the lower tree than what the upper directory has too. What a file is, and
// holds, is asked of the merged tree: a file of which only the metadata was changed has its
// content below.
func (c *changes) walk(ctx context.Context, change fs.ChangeFunc) error {
	return c.dir(ctx, "/", true, change)
}

// dir walks a directory of the upper one; below says whether it is a directory in the lower
// tree, too. Where it is not, a symbolic link may be there, which must not be followed.
func (c *changes) dir(ctx context.Context, path string, below bool, change fs.ChangeFunc) error {
	// tellsAll has looked, but a container that runs goes on.
	why, err := untold(filepath.Join(c.upper, path))
	if err != nil {
		return err
	}
	if why != "" {
		return fmt.Errorf("%s while the changes were read: %w; pause the container, or try again", why, errdefs.ErrAborted)
	}
	names, err := os.ReadDir(filepath.Join(c.upper, path))
	if err != nil {
		return err
	}
	for _, d := range names {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := c.name(ctx, filepath.Join(path, d.Name()), below, change); err != nil {
			return err
		}
	}
	return nil
}

func (c *changes) name(ctx context.Context, path string, below bool, change fs.ChangeFunc) error {
	up, err := os.Lstat(filepath.Join(c.upper, path))
	if err != nil {
		return err
	}
	var low os.FileInfo
	if below {
		low, err = os.Lstat(filepath.Join(c.lower, path))
		if err != nil && !errors.Is(err, iofs.ErrNotExist) {
			return err
		}
	}
	if isWhiteout(up) {
		if low == nil {
			return nil
		}
		return change(fs.ChangeKindDelete, path, nil, nil)
	}
	now, err := os.Lstat(filepath.Join(c.merged, path))
	if err != nil {
		return err
	}
	kind, changed, err := c.kind(path, low, now)
	if err != nil {
		return fmt.Errorf("compare %s: %w", path, err)
	}
	if changed {
		if err := change(kind, path, now, nil); err != nil {
			return err
		}
	}
	if !now.IsDir() {
		return nil
	}
	if low == nil || !low.IsDir() {
		return c.dir(ctx, path, false, change)
	}
	opaque, err := overlayXattr(filepath.Join(c.upper, path), opaqueAttr)
	if err != nil {
		return err
	}
	if opaque == "" {
		return c.dir(ctx, path, true, change)
	}
	return c.replaced(ctx, path, change)
}

// replaced compares a directory that was removed and made again with the one below: the
// upper directory does not say what was removed with it.
func (c *changes) replaced(ctx context.Context, path string, change fs.ChangeFunc) error {
	return fs.Changes(ctx, filepath.Join(c.lower, path), filepath.Join(c.merged, path),
		func(kind fs.ChangeKind, p string, f os.FileInfo, err error) error {
			return change(kind, filepath.Join(path, p), f, err)
		})
}

// kind says what became of a name that was low below and is now in the merged tree. A name
// that nothing became of counts as unmodified if it has others, since one of those may be
// new, and is a link then; else it is no change.
func (c *changes) kind(path string, low, now os.FileInfo) (kind fs.ChangeKind, changed bool, err error) {
	if low == nil {
		return fs.ChangeKindAdd, true, nil
	}
	same, err := sameFile(filepath.Join(c.lower, path), filepath.Join(c.merged, path), low, now)
	switch {
	case err != nil:
		return fs.ChangeKindUnmodified, false, err
	case !same:
		return fs.ChangeKindModify, true, nil
	}
	return fs.ChangeKindUnmodified, !now.IsDir() && statOf(now).Nlink > 1, nil
}

// isWhiteout says whether a file of an upper directory hides what lies below.
func isWhiteout(f os.FileInfo) bool {
	return f.Mode()&os.ModeCharDevice != 0 && statOf(f).Rdev == 0
}

// statOf returns what the kernel said of a file. All of ours come from Lstat.
func statOf(f os.FileInfo) *syscall.Stat_t {
	if st, ok := f.Sys().(*syscall.Stat_t); ok {
		return st
	}
	return new(syscall.Stat_t)
}
