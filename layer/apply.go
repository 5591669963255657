package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"sort"
	"strings"
)

// Names with a meaning of their own (OCI image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
	xattrPrefix    = "SCHILY.xattr."
)

// apply does to the tree what containerd does to a directory on overlayfs when it meets
// this header. It returns the number of the inode of a new regular file, whose content
// follows in the tar, else noFile.
func (t *tree) apply(hdr *tar.Header) (int32, error) {
	n, err := t.applyHeader(hdr)
	return n, tarError(err)
}

const noFile = -1

func (t *tree) applyHeader(hdr *tar.Header) (int32, error) {
	if err := t.hold(hdr); err != nil {
		return noFile, err
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader && hdr.PAXRecords == nil {
		// archive/tar has stopped at a value that it cannot read, after others or before.
		return noFile, fmt.Errorf("%w: a global header whose values cannot be read", ErrTar)
	}
	given := hdr.Name
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		// GNU tar names them /tmp/GlobalHead.1, and says nothing by it.
		given = strings.TrimPrefix(path.Clean(given), "/")
	}
	name, err := cleanName(given)
	if err != nil {
		return noFile, err
	}
	if name == "/" {
		return noFile, t.applyRoot(hdr)
	}
	dir, base := path.Split(name)
	names, err := resolve[int32](t, dir)
	if err != nil {
		return noFile, err
	}
	parent, err := t.mkparent(names)
	if err != nil {
		return noFile, err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return noFile, t.whiteout(parent, base)
	}
	old, exists := t.lookup(parent, base)
	if exists && (!t.isDir(old) || hdr.Typeflag != tar.TypeDir) {
		t.remove(old)
		exists = false
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return noFile, nil
	}
	var i int32
	if exists {
		i = t.again(old)
	} else if i, err = t.create(parent, base, hdr); err != nil {
		return noFile, err
	}
	n := t.inodes.at(i)
	if err := t.setMeta(n, hdr); err != nil {
		return noFile, err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		t.dirs = append(t.dirs, dirHdr{strings.Clone(name), n.Mtime, n.MtimeNsec})
	case tar.TypeReg, tar.TypeGNUSparse:
		return i, nil
	}
	return noFile, nil
}

// cleanName makes the name of a tar entry a path without "." and "..", which is "/" for
// the root.
func cleanName(name string) (string, error) {
	clean := path.Clean(name)
	if clean == "." || clean == "/" {
		return "/", nil
	}
	if clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(clean, "/") {
		return "", ErrPath
	}
	return clean, nil
}

// applyRoot keeps what the tar says of the root. No mount shows it: containerd makes the
// root itself, and skips such entries.
func (t *tree) applyRoot(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return nil
	}
	root := t.inode(t.top())
	if root.Implied = false; root.more != 0 {
		*t.more[root.more] = more{}
	}
	return t.setMeta(root, hdr)
}

// whiteout applies a name that starts with .wh. in the directory parent.
func (t *tree) whiteout(parent int32, base string) error {
	if base == opaqueName {
		t.inode(parent).Opaque = true
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: whiteout of no name", ErrTar)
	}
	if _, exists := t.lookup(parent, name); exists {
		return fmt.Errorf("%w: whiteout of what the same layer has (containerd refuses it as well)", ErrTar)
	}
	_, err := t.add(parent, name, t.inodes.add(inode{Whiteout: true, number: -1}))
	return err
}

// again is what a header does to a directory that is there, and returns its inode.
func (t *tree) again(dir int32) int32 {
	n := t.inode(dir)
	n.KeepXattrs = n.KeepXattrs || n.Implied
	n.Implied = false
	return t.nodes.at(dir).inode
}

// create makes the name that the header asks for, and returns its inode.
func (t *tree) create(parent int32, base string, hdr *tar.Header) (int32, error) {
	if hdr.Typeflag == tar.TypeLink {
		to, err := t.linkTarget(hdr.Linkname)
		if err == nil {
			_, err = t.add(parent, base, to)
		}
		return to, err
	}
	n := inode{number: -1}
	switch hdr.Typeflag {
	case tar.TypeDir:
		n.Mode = os.ModeDir
	case tar.TypeReg, tar.TypeGNUSparse:
		if hdr.Size > MaxFile {
			return 0, fmt.Errorf("%w (file of %d bytes)", ErrTooLarge, int64(MaxFile))
		}
		n.Size = hdr.Size
	case tar.TypeSymlink:
		if err := checkTarget(hdr.Linkname); err != nil {
			return 0, tarError(err)
		}
		n.Mode = os.ModeSymlink
		t.extra(&n).target = strings.Clone(hdr.Linkname)
	case tar.TypeFifo:
		n.Mode = os.ModeNamedPipe
	case tar.TypeBlock, tar.TypeChar:
		n.Mode = os.ModeDevice
		if hdr.Typeflag == tar.TypeChar {
			n.Mode |= os.ModeCharDevice
		}
		if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
			return 0, fmt.Errorf("%w: device number %d:%d", ErrTar, hdr.Devmajor, hdr.Devminor)
		}
		if hdr.Devmajor != 0 || hdr.Devminor != 0 {
			x := t.extra(&n)
			x.Major, x.Minor = uint32(hdr.Devmajor), uint32(hdr.Devminor)
		}
	default:
		return 0, fmt.Errorf("%w: entry type %q", ErrTar, hdr.Typeflag)
	}
	i := t.inodes.add(n)
	_, err := t.add(parent, base, i)
	return i, err
}

// linkTarget finds the inode that a hard link names. Symlinks on the way are followed; a
// symlink at the end is linked itself.
func (t *tree) linkTarget(linkname string) (int32, error) {
	if clean := path.Clean(linkname); clean == ".." || strings.HasPrefix(clean, "../") {
		return 0, fmt.Errorf("%w: hard link to %q", ErrPath, linkname)
	}
	dir, base := path.Split(linkname)
	names, err := resolve[int32](t, dir)
	if err != nil {
		return 0, fmt.Errorf("hard link to %q: %w", linkname, err)
	}
	steps := 0
	d, ok, err := lstat[int32](t, push(names, base), &steps)
	if err != nil {
		return 0, fmt.Errorf("hard link to %q: %w", linkname, err)
	}
	if !ok {
		return 0, fmt.Errorf("%w: %q", ErrHardlink, linkname)
	}
	if t.isDir(d) {
		return 0, fmt.Errorf("%w: %q is a directory", ErrHardlink, linkname)
	}
	return t.nodes.at(d).inode, nil
}

// setMeta gives an inode the owner, extended attributes, mode and time of a header.
func (t *tree) setMeta(n *inode, hdr *tar.Header) error {
	if n.Whiteout {
		return nil // reached by a hard link; a whiteout is nothing but its name
	}
	// An id of -1 leaves the owner as it is; what is wider than the kernel's ids is cut.
	if uid := uint32(hdr.Uid); uid != math.MaxUint32 {
		n.UID = uid
	}
	if gid := uint32(hdr.Gid); gid != math.MaxUint32 {
		n.GID = gid
	}
	if err := t.setXattrs(n, hdr.PAXRecords); err != nil {
		return err
	}
	n.Mode = n.Mode.Type() | hdr.FileInfo().Mode()&permBits
	n.Mtime, n.MtimeNsec = hdr.ModTime.Unix(), uint32(hdr.ModTime.Nanosecond())
	return nil
}

func (t *tree) setXattrs(n *inode, records map[string]string) error {
	xattrs := t.more[n.more].xattrs()
	// The kernel drops capabilities when the owner is set, which a second name for the
	// file does again.
	if i := findXattr(xattrs, "security.capability"); i >= 0 && !n.Mode.IsDir() {
		xattrs = append(xattrs[:i:i], xattrs[i+1:]...)
	}
	var set []Xattr
	for key, value := range records {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok || strings.HasPrefix(name, "trusted.") {
			continue // containerd takes none of trusted.*
		}
		a := Xattr{strings.Clone(name), strings.Clone(value)}
		if err := checkXattr(a); err != nil {
			return tarError(err)
		}
		set = append(set, a)
	}
	if len(set) > 0 {
		// A header can have 50,000: no list is searched for each.
		for _, a := range xattrs {
			if _, again := records[xattrPrefix+a.Name]; !again {
				set = append(set, a)
			}
		}
		xattrs = set
	}
	sort.Slice(xattrs, func(i, j int) bool { return xattrs[i].Name < xattrs[j].Name })
	if len(xattrs) > 0 || n.more != 0 {
		t.extra(n).Xattrs = xattrs
	}
	return tarError(checkXattrs(xattrs))
}

func findXattr(xattrs []Xattr, name string) int {
	for i := range xattrs {
		if xattrs[i].Name == name {
			return i
		}
	}
	return -1
}

// setDirTimes does what containerd does when the tar has ended: it sets the time of every
// directory again, by name. Where the name has come to mean something else since, that
// gets the time; where it is gone, the layer is refused.
func (t *tree) setDirTimes() error {
	for _, h := range t.dirs {
		names, err := resolve[int32](t, h.name)
		if err != nil {
			return fmt.Errorf("directory %q: %w", h.name, err)
		}
		steps := 0
		d, ok, err := lstat[int32](t, names, &steps)
		if err != nil {
			return fmt.Errorf("directory %q: %w", h.name, err)
		}
		if !ok {
			return fmt.Errorf("directory %q: %w: a later entry removed it (containerd refuses it as well)", h.name, ErrTar)
		}
		if n := t.inode(d); !n.Implied && !n.Whiteout && d != t.top() {
			n.Mtime, n.MtimeNsec = h.sec, h.nsec
		}
	}
	return nil
}

// tarError makes an error of the index's rules one of the tar.
func tarError(err error) error {
	if errors.Is(err, ErrIndex) {
		return fmt.Errorf("%w: %w", ErrTar, err)
	}
	return err
}
