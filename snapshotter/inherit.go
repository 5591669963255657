//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/containerd/continuity/fs"
	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/layer"
)

// inherit gives the directories of a run that no layer of it has an entry for the owner,
// mode, time and extended attributes that they have below, as containerd does when it
// extracts a layer on top of others.
func (s *Snapshotter) inherit(ctx context.Context, t *layer.Tree, r run) error {
	if !t.HasImplied() {
		return nil
	}
	below, release, err := s.mountBelow(ctx, r)
	if err != nil {
		return err
	}
	defer release()
	for i, path := range t.Implied() {
		in := t.Inode(i)
		if err := inheritInode(&in, below, path); err != nil {
			return err
		}
		t.Set(i, in)
	}
	return nil
}

// mountBelow returns a path that shows what a run lies on, until release is called.
func (s *Snapshotter) mountBelow(ctx context.Context, r run) (path string, release func(), err error) {
	key := "chain " + r.id
	l, err := s.lower(ctx, key, r.below, use{})
	if err != nil {
		return "", nil, err
	}
	if len(l.dirs) == 1 && len(l.data) == 0 {
		return l.dirs[0], func() {}, nil // overlayfs wants two
	}
	path, err = s.merged.ensure(r.belowID(), key, l.dirs, func(dir string) error { return mountMerged(dir, l) })
	return path, func() { s.merged.release(key) }, err
}

// inheritInode takes over what the directory at path below has. Where there is none, the
// directory stays as it is.
func inheritInode(in *layer.Inode, below, path string) error {
	var st unix.Stat_t
	real, err := fs.RootPath(below, path)
	if err == nil {
		err = unix.Lstat(real, &st)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return nil
	case err != nil:
		return fmt.Errorf("directory %s below: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return nil
	}
	in.UID, in.GID = st.Uid, st.Gid
	if path == "" {
		return nil // the root of a snapshot inherits its owner and nothing else
	}
	in.Mode = os.ModeDir | os.FileMode(st.Mode&0o777)
	for _, b := range specialBits() {
		if st.Mode&b.stat != 0 {
			in.Mode |= b.mode
		}
	}
	in.Mtime, in.MtimeNsec = st.Mtim.Sec, uint32(st.Mtim.Nsec)
	names, err := sysx.LListxattr(real)
	if err != nil {
		return fmt.Errorf("directory %s below: %w", path, err)
	}
	var xattrs []layer.Xattr
	for _, name := range names {
		if steersOverlays(name) {
			continue
		}
		value, err := sysx.LGetxattr(real, name)
		if err != nil {
			return fmt.Errorf("directory %s below: %s: %w", path, name, err)
		}
		xattrs = append(xattrs, layer.Xattr{Name: name, Value: string(value)})
	}
	if len(xattrs) > 0 {
		slices.SortFunc(xattrs, func(a, b layer.Xattr) int { return strings.Compare(a.Name, b.Name) })
		in.Extra = &layer.Extra{Xattrs: xattrs}
	}
	return nil
}
