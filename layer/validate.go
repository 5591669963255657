package layer

import (
	"fmt"
	"os"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
)

// A validator checks the entries of an index in order: what both EncodeIndex and
// DecodeIndex hold every index to.
type validator struct {
	entries entries // those before, at least
	path    []step  // from the root down to the entry before
}

// A step is one entry on a path.
type step struct {
	name string
	dir  bool // can have others below
}

// entry checks the next entry, which is entry i.
func (v *validator) entry(i, depth int, e *Entry) error {
	err := v.place(i, depth, e)
	if err == nil {
		err = v.inode(i, e)
	}
	if err != nil {
		return fmt.Errorf("entry %d (%q): %w", i, e.Name, err)
	}
	return nil
}

// place checks that the entry stands where the order puts it.
func (v *validator) place(i, depth int, e *Entry) error {
	if i == 0 {
		if depth != 0 || e.Name != "" || !e.Mode.IsDir() || e.KeepXattrs {
			return fmt.Errorf("%w: the first entry is not a root", ErrIndex)
		}
		v.path = append(v.path, step{dir: true})
		return nil
	}
	if depth == 0 || depth > len(v.path) {
		return fmt.Errorf("%w: depth %d after depth %d", ErrIndex, depth, len(v.path)-1)
	}
	if !v.path[depth-1].dir {
		return fmt.Errorf("%w: its parent is not a directory before it", ErrIndex)
	}
	if depth > MaxDepth {
		return fmt.Errorf("%w (depth %d)", ErrTooLarge, MaxDepth)
	}
	if err := checkName(e.Name); err != nil {
		return err
	}
	if depth < len(v.path) && v.path[depth].name >= e.Name {
		return fmt.Errorf("%w: it comes after %q", ErrIndex, v.path[depth].name)
	}
	v.path = append(v.path[:depth], step{e.Name, e.Mode.IsDir() && !e.Whiteout})
	return nil
}

func checkName(name string) error {
	if len(name) > MaxName {
		return fmt.Errorf("%w (name of %d bytes)", ErrTooLarge, MaxName)
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: not a name", ErrIndex)
	}
	return nil
}

// inode checks that the entry has what its type has, and nothing else.
func (v *validator) inode(i int, e *Entry) error {
	want := Entry{Name: e.Name, Parent: e.Parent, Link: -1}
	x := e.Extra
	switch {
	case e.Whiteout:
		want.Whiteout = true
		return same(e, &want, x == nil, "whiteout")
	case e.Link >= 0:
		want.Link = e.Link
		if err := v.link(i, e.Link); err != nil {
			return err
		}
		return same(e, &want, x == nil, "hard link")
	case e.Implied:
		want.Mode, want.Implied, want.Opaque, want.GID = impliedMode, true, e.Opaque, e.GID
		return same(e, &want, x == nil, "implied directory")
	}
	want.Mode = e.Mode&permBits | e.Mode.Type()
	want.UID, want.GID, want.Mtime, want.MtimeNsec = e.UID, e.GID, e.Mtime, e.MtimeNsec
	if e.MtimeNsec > 999_999_999 {
		return fmt.Errorf("%w: %d nanoseconds", ErrIndex, e.MtimeNsec)
	}
	if x != nil && len(x.Xattrs) == 0 && x.Leaves == "" && x.Major == 0 && x.Minor == 0 {
		return fmt.Errorf("%w: empty extra", ErrIndex)
	}
	if err := checkXattrs(e.Xattrs()); err != nil {
		return err
	}
	return e.checkType(&want)
}

func (e *Entry) checkType(want *Entry) error {
	major, minor := e.Device()
	device := major != 0 || minor != 0
	plain := e.Leaves() == "" && !device
	switch e.Mode.Type() {
	case 0:
		want.Size, want.Digest = e.Size, e.Digest
		if err := same(e, want, !device, "file"); err != nil {
			return err
		}
		return e.checkFile()
	case os.ModeDir:
		want.Opaque, want.KeepXattrs = e.Opaque, e.KeepXattrs
		return same(e, want, plain, "directory")
	case os.ModeSymlink:
		want.Target = e.Target
		if err := checkTarget(e.Target); err != nil {
			return err
		}
		return same(e, want, plain, "symlink")
	case os.ModeDevice, os.ModeDevice | os.ModeCharDevice:
		return same(e, want, e.Leaves() == "", "device")
	case os.ModeNamedPipe:
		return same(e, want, plain, "fifo")
	}
	return fmt.Errorf("%w: mode %v", ErrIndex, e.Mode)
}

// same compares an entry with all that one of its kind may hold.
func same(e, want *Entry, ok bool, kind string) error {
	got := *e
	got.Extra = nil
	if !ok || got != *want {
		return fmt.Errorf("%w: more or other fields than a %s has", ErrIndex, kind)
	}
	return nil
}

// checkFile proves the digest from the leaves and the size. For one leaf there is
// nothing to prove: the digest is that of the leaf.
func (e *Entry) checkFile() error {
	if len(e.Digest) != sumSize {
		return fmt.Errorf("%w: digest of %d bytes", ErrIndex, len(e.Digest))
	}
	if e.Size < 0 || e.Size > MaxFile {
		return fmt.Errorf("%w (file of %d bytes)", ErrTooLarge, int64(MaxFile))
	}
	leaves := e.Leaves()
	if ipfs.NumLeaves(e.Size) == 1 && leaves == "" {
		return nil
	}
	return makeFile(e.Digest, e.Size, leaves).Check()
}

func (v *validator) link(i int, to int32) error {
	if to == 0 || int(to) >= i {
		return fmt.Errorf("%w: hard link to entry %d, which does not come before it", ErrIndex, to)
	}
	if t, _ := v.entries.at(int(to)); t.Mode.IsDir() || t.Whiteout || t.Link >= 0 {
		return fmt.Errorf("%w: hard link to entry %d, which holds no file", ErrIndex, to)
	}
	return nil
}

func checkTarget(target string) error {
	if target == "" || strings.IndexByte(target, 0) >= 0 {
		return fmt.Errorf("%w: symlink target %q", ErrIndex, target)
	}
	if len(target) > MaxTarget {
		return fmt.Errorf("%w (symlink target of %d bytes)", ErrTooLarge, MaxTarget)
	}
	return nil
}

func checkXattrs(xattrs []Xattr) error {
	total := 0
	for i, a := range xattrs {
		if i > 0 && xattrs[i-1].Name >= a.Name {
			return fmt.Errorf("%w: extended attribute %q after %q", ErrIndex, a.Name, xattrs[i-1].Name)
		}
		if err := checkXattr(a); err != nil {
			return err
		}
		total += len(a.Name) + len(a.Value)
	}
	if total > MaxXattrs {
		return fmt.Errorf("%w (%d bytes of extended attributes)", ErrTooLarge, MaxXattrs)
	}
	return nil
}

// checkXattr refuses what would steer the overlay mount: trusted.overlay.* and, with the
// mount option userxattr, user.overlay.*.
func checkXattr(a Xattr) error {
	if strings.HasPrefix(a.Name, "trusted.") || strings.HasPrefix(a.Name, "user.overlay.") {
		return fmt.Errorf("%w %s", ErrXattr, a.Name)
	}
	if len(a.Name) > MaxName || len(a.Value) > MaxXattrValue {
		return fmt.Errorf("%w (extended attribute %.40q: name of %d, value of %d bytes)", ErrTooLarge, a.Name, MaxName, MaxXattrValue)
	}
	space, rest, _ := strings.Cut(a.Name, ".")
	if a.Name == "" || strings.IndexByte(a.Name, 0) >= 0 || rest == "" && (space == "user" || space == "security" || space == "system") {
		return fmt.Errorf("%w: extended attribute %q has no name", ErrIndex, a.Name)
	}
	return nil
}
