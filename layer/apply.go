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
// this header. It returns the inode of a new regular file, whose content follows in the
// tar, else nil.
func (t *tree) apply(hdr *tar.Header) (*inode, error) {
	n, err := t.applyHeader(hdr)
	return n, tarError(err)
}

func (t *tree) applyHeader(hdr *tar.Header) (*inode, error) {
	if err := t.hold(hdr); err != nil {
		return nil, err
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader && hdr.PAXRecords == nil {
		// archive/tar has stopped at a value that it cannot read, after others or before.
		return nil, fmt.Errorf("%w: a global header whose values cannot be read", ErrTar)
	}
	given := hdr.Name
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		// GNU tar names them /tmp/GlobalHead.1, and says nothing by it.
		given = strings.TrimPrefix(path.Clean(given), "/")
	}
	name, err := cleanName(given)
	if err != nil {
		return nil, err
	}
	if name == "/" {
		return nil, t.applyRoot(hdr)
	}
	dir, base := path.Split(name)
	names, err := resolve(t, dir)
	if err != nil {
		return nil, err
	}
	parent, err := t.mkparent(names)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return nil, t.whiteout(parent, base)
	}
	old := parent.children[base]
	if old != nil && (!t.isDir(old) || hdr.Typeflag != tar.TypeDir) {
		t.remove(old)
		old = nil
	}
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil, nil
	}
	d, err := t.create(parent, base, old, hdr)
	if err != nil {
		return nil, err
	}
	if err := d.setMeta(hdr); err != nil {
		return nil, err
	}
	switch hdr.Typeflag {
	case tar.TypeDir:
		t.dirs = append(t.dirs, dirHdr{strings.Clone(name), d.Mtime, d.MtimeNsec})
	case tar.TypeReg, tar.TypeGNUSparse:
		return d.inode, nil
	}
	return nil, nil
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
	t.root.Implied = false
	t.root.Extra = nil
	return t.root.setMeta(hdr)
}

// whiteout applies a name that starts with .wh. in the directory parent.
func (t *tree) whiteout(parent *dirent, base string) error {
	if base == opaqueName {
		parent.Opaque = true
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return fmt.Errorf("%w: whiteout of no name", ErrTar)
	}
	if parent.children[name] != nil {
		return fmt.Errorf("%w: whiteout of what the same layer has (containerd refuses it as well)", ErrTar)
	}
	_, err := t.add(parent, name, &inode{Entry: Entry{Whiteout: true}, number: -1})
	return err
}

// create makes the entry that the header asks for; old is a directory that stays.
func (t *tree) create(parent *dirent, base string, old *dirent, hdr *tar.Header) (*dirent, error) {
	n := &inode{number: -1}
	switch hdr.Typeflag {
	case tar.TypeDir:
		if old != nil {
			old.KeepXattrs = old.KeepXattrs || old.Implied
			old.Implied = false
			return old, nil
		}
		n.Mode = os.ModeDir
	case tar.TypeReg, tar.TypeGNUSparse:
		if hdr.Size > MaxFile {
			return nil, fmt.Errorf("%w (file of %d bytes)", ErrTooLarge, int64(MaxFile))
		}
		n.Size = hdr.Size
	case tar.TypeLink:
		to, err := t.linkTarget(hdr.Linkname)
		if err != nil {
			return nil, err
		}
		return t.add(parent, base, to)
	case tar.TypeSymlink:
		if err := checkTarget(hdr.Linkname); err != nil {
			return nil, tarError(err)
		}
		n.Mode, n.Target = os.ModeSymlink, strings.Clone(hdr.Linkname)
	case tar.TypeFifo:
		n.Mode = os.ModeNamedPipe
	case tar.TypeBlock, tar.TypeChar:
		n.Mode = os.ModeDevice
		if hdr.Typeflag == tar.TypeChar {
			n.Mode |= os.ModeCharDevice
		}
		if hdr.Devmajor < 0 || hdr.Devmajor > math.MaxUint32 || hdr.Devminor < 0 || hdr.Devminor > math.MaxUint32 {
			return nil, fmt.Errorf("%w: device number %d:%d", ErrTar, hdr.Devmajor, hdr.Devminor)
		}
		if hdr.Devmajor != 0 || hdr.Devminor != 0 {
			n.Extra = &Extra{Major: uint32(hdr.Devmajor), Minor: uint32(hdr.Devminor)}
		}
	default:
		return nil, fmt.Errorf("%w: entry type %q", ErrTar, hdr.Typeflag)
	}
	return t.add(parent, base, n)
}

// linkTarget finds the inode that a hard link names. Symlinks on the way are followed; a
// symlink at the end is linked itself.
func (t *tree) linkTarget(linkname string) (*inode, error) {
	if clean := path.Clean(linkname); clean == ".." || strings.HasPrefix(clean, "../") {
		return nil, fmt.Errorf("%w: hard link to %q", ErrPath, linkname)
	}
	dir, base := path.Split(linkname)
	names, err := resolve(t, dir)
	if err != nil {
		return nil, fmt.Errorf("hard link to %q: %w", linkname, err)
	}
	steps := 0
	d, ok, err := lstat(t, push(names, base), &steps)
	if err != nil {
		return nil, fmt.Errorf("hard link to %q: %w", linkname, err)
	}
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrHardlink, linkname)
	}
	if t.isDir(d) {
		return nil, fmt.Errorf("%w: %q is a directory", ErrHardlink, linkname)
	}
	return d.inode, nil
}

// setMeta gives an inode the owner, extended attributes, mode and time of a header.
func (n *inode) setMeta(hdr *tar.Header) error {
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
	if err := n.setXattrs(hdr.PAXRecords); err != nil {
		return err
	}
	n.Mode = n.Mode.Type() | hdr.FileInfo().Mode()&permBits
	n.Mtime, n.MtimeNsec = hdr.ModTime.Unix(), uint32(hdr.ModTime.Nanosecond())
	return nil
}

func (n *inode) setXattrs(records map[string]string) error {
	xattrs := n.Xattrs()
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
	if len(xattrs) > 0 {
		n.extra().Xattrs = xattrs
	} else if x := n.Extra; x != nil {
		if x.Xattrs = nil; x.Major == 0 && x.Minor == 0 {
			n.Extra = nil
		}
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
		names, err := resolve(t, h.name)
		if err != nil {
			return fmt.Errorf("directory %q: %w", h.name, err)
		}
		steps := 0
		d, ok, err := lstat(t, names, &steps)
		if err != nil {
			return fmt.Errorf("directory %q: %w", h.name, err)
		}
		if !ok {
			return fmt.Errorf("directory %q: %w: a later entry removed it (containerd refuses it as well)", h.name, ErrTar)
		}
		if !d.Implied && !d.Whiteout && d != t.root {
			d.Mtime, d.MtimeNsec = h.sec, h.nsec
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
