//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/layer"
)

// A namespace begins the names of what overlayfs reads from the inodes of a metadata layer.
type namespace string

const (
	trusted namespace = "trusted.overlay."
	user    namespace = "user.overlay." // with the option userxattr
)

const userxattr = "userxattr"

// attributes are the names of what overlayfs reads, for one namespace.
type attributes struct {
	namespace                              namespace
	nameMetacopy, nameRedirect, nameOpaque string
}

// attributesOf returns those that an overlay with these options reads.
func attributesOf(options []string) attributes {
	n := trusted
	if slices.Contains(options, userxattr) {
		n = user
	}
	return attributes{n, string(n) + "metacopy", string(n) + "redirect", string(n) + "opaque"}
}

// redirect says that the data of a file are elsewhere, and at which path, which begins with a slash.
func (a *attributes) redirect(path string) []erofs.Xattr {
	return []erofs.Xattr{{Name: a.nameMetacopy}, {Name: a.nameRedirect, Value: path}}
}

// opaque says that nothing below is seen through a directory.
func (a *attributes) opaque() []erofs.Xattr {
	return []erofs.Xattr{{Name: a.nameOpaque, Value: "y"}}
}

// steersOverlays says whether overlays, with userxattr or without, are steered by an
// extended attribute.
func steersOverlays(name string) bool {
	return strings.HasPrefix(name, string(trusted)) || strings.HasPrefix(name, string(user))
}

// overlayTree is a merged tree as the metadata layer of an overlay: an erofs.Tree.
type overlayTree struct {
	*layer.Tree
	data  DataMode
	names attributes
}

// merge opens the layers of a run, and merges them.
func (s *Snapshotter) merge(ctx context.Context, r run) (*layer.Tree, error) {
	indexes := make([]*layer.Encoded, len(r.roots))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallelLoads)
	for i, root := range r.roots {
		group.Go(func() error {
			l, err := s.opener.open(gctx, root)
			if err == nil {
				indexes[i] = l.index
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	merged, err := layer.Merge(indexes, len(r.below) == 0)
	if err != nil {
		return nil, fmt.Errorf("merge the %d layers of chain %s: %w", len(r.roots), r.id, err)
	}
	return merged, nil
}

// mergeRun makes of a run what is mounted.
func (s *Snapshotter) mergeRun(ctx context.Context, r run) (erofs.Tree, error) {
	merged, err := s.merge(ctx, r)
	if err != nil {
		return nil, err
	}
	s.show(r, merged)
	if len(r.below) > 0 {
		if err := s.inherit(ctx, merged, r); err != nil {
			return nil, fmt.Errorf("chain %s: %w", r.id, err)
		}
	} else if s.support.data == DataHidden {
		closeDirs(merged)
	}
	if s.support.data == DataHidden && hasRootName(merged, objects.Hidden) {
		return nil, fmt.Errorf("%w: the image has a file of the name /%s, which is hidden on this kernel", ErrUnsupported, objects.Hidden)
	}
	return &overlayTree{merged, s.support.data, attributesOf(s.overlayOptions)}, nil
}

// closeDirs makes the directories in the root opaque, where the data are ordinary layers and
// nothing else lies below: the kernel would look there for each of them, and so ask FUSE.
func closeDirs(t *layer.Tree) {
	for _, inode := range t.Names(0) {
		if in := t.Inode(inode); in.Mode.IsDir() {
			in.Opaque = true
			t.Set(inode, in)
		}
	}
}

func hasRootName(t *layer.Tree, name string) bool {
	for n := range t.Names(0) {
		if n == name {
			return true
		}
	}
	return false
}

// Inode implements erofs.Tree.
func (o *overlayTree) Inode(i int, n *erofs.Inode) {
	in := o.Tree.Inode(i)
	n.UID, n.GID = in.UID, in.GID
	n.Mtime, n.MtimeNsec = in.Mtime, in.MtimeNsec
	n.Nlink = in.Nlink
	if in.Whiteout {
		n.Mode = unix.S_IFCHR // of device 0:0
		n.Nlink = max(n.Nlink, 1)
		return
	}
	n.Mode = statMode(in.Mode)
	n.Target = in.Target
	switch n.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		n.Size = uint64(in.Size)
	case unix.S_IFCHR, unix.S_IFBLK:
		n.Rdev = encodeDevice(in.Device())
	case unix.S_IFDIR:
		for name, inode := range o.Names(i) {
			n.Entries = append(n.Entries, erofs.Dirent{Name: name, Inode: uint32(inode)})
		}
	}
	o.xattrs(&in, n)
}

// xattrs adds the extended attributes, and those for overlayfs where they sort.
func (o *overlayTree) xattrs(in *layer.Inode, n *erofs.Inode) {
	var own []erofs.Xattr
	switch {
	case in.Mode.IsRegular() && in.Size > 0:
		own = o.names.redirect(redirect(o.data, in.File().Cid))
	case in.Mode.IsDir() && in.Opaque:
		own = o.names.opaque()
	}
	for _, x := range in.Xattrs() {
		if !erofs.HasXattr(x.Name) {
			continue // no file system has it, and containerd drops it as well when it applies a layer
		}
		if steersOverlays(x.Name) {
			continue // it would steer the mount; an index with one is refused when it is read
		}
		for len(own) > 0 && own[0].Name < x.Name {
			n.Xattrs = append(n.Xattrs, own[0])
			own = own[1:]
		}
		n.Xattrs = append(n.Xattrs, erofs.Xattr{Name: x.Name, Value: x.Value})
	}
	n.Xattrs = append(n.Xattrs, own...)
}

// specialBits are those that Go and stat(2) have in different places.
func specialBits() [3]struct {
	mode os.FileMode
	stat uint32
} {
	return [...]struct {
		mode os.FileMode
		stat uint32
	}{{os.ModeSetuid, unix.S_ISUID}, {os.ModeSetgid, unix.S_ISGID}, {os.ModeSticky, unix.S_ISVTX}}
}

// statMode returns a mode as stat(2) has it.
func statMode(m os.FileMode) uint32 {
	mode := uint32(m.Perm())
	for _, b := range specialBits() {
		if m&b.mode != 0 {
			mode |= b.stat
		}
	}
	switch m.Type() {
	case os.ModeDir:
		return mode | unix.S_IFDIR
	case os.ModeSymlink:
		return mode | unix.S_IFLNK
	case os.ModeDevice:
		return mode | unix.S_IFBLK
	case os.ModeDevice | os.ModeCharDevice:
		return mode | unix.S_IFCHR
	case os.ModeNamedPipe:
		return mode | unix.S_IFIFO
	case os.ModeSocket:
		return mode | unix.S_IFSOCK
	}
	return mode | unix.S_IFREG
}

// encodeDevice packs a device number as the kernel does, which takes 12 and 20 bits of
// what mknod(2) is given, and so of what is in a tar.
func encodeDevice(major, minor uint32) uint32 {
	return minor&0xff | major&0xfff<<8 | minor&0xfff00<<12
}
