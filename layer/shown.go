package layer

import (
	"iter"
	"math"
	"os"
	"strings"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

// A Tree is what a chain of layers shows: names, and the inodes behind them, by number. It
// says of a name and of what is no directory only which entry of which layer has it, and
// reads that when it is asked, so that it takes 20 bytes beside the indexes. It may be read
// by any number of goroutines.
type Tree struct {
	layers []treeLayer
	names  []shownName // those of a directory stand together
	inodes []ref
	dirs   []treeDir
}

// A treeLayer is a layer of a Tree.
type treeLayer struct {
	x     *Encoded
	names map[int32]uint32 // by first entry of hard links: how many other names there are
}

// A shownName is one name.
type shownName struct {
	part  // has the name
	inode int32
}

// A ref says where an inode is: in an entry of a layer, or else.
type ref struct{ layer, entry int32 }

// Layers of refs that are none: entry is the number of the directory, or nothing.
const (
	dirRef      = -1
	whiteoutRef = -2
)

// A treeDir is a directory. Its names are names[first:first+count].
type treeDir struct {
	Inode
	first, count int32
}

// An Inode is a file, directory, symlink, device or fifo of a tree. Names that are hard
// links of each other share one.
type Inode struct {
	Digest    string // regular files, as in Entry
	Target    string
	Extra     *Extra // shared with the index
	Mtime     int64
	Size      int64
	MtimeNsec uint32
	Mode      os.FileMode
	UID, GID  uint32
	Nlink     uint32
	Whiteout  bool // only without a bottom: a character device 0:0 for the mount below
	Opaque    bool // only without a bottom: hides what lies below
	Implied   bool // only without a bottom: what lies below decides on owner, mode and time
}

// File returns the file of a regular inode.
func (n *Inode) File() ipfs.File {
	var leaves string
	if n.Extra != nil {
		leaves = n.Extra.Leaves
	}
	return makeFile(n.Digest, n.Size, leaves)
}

// Xattrs returns the extended attributes, sorted by name.
func (n *Inode) Xattrs() []Xattr {
	if n.Extra == nil {
		return nil
	}
	return n.Extra.Xattrs
}

// Device returns the device number of a device.
func (n *Inode) Device() (major, minor uint32) {
	if n.Extra == nil {
		return 0, 0
	}
	return n.Extra.Major, n.Extra.Minor
}

// rootMode is the mode of the root, which no layer decides on: containerd makes it.
const rootMode = os.ModeDir | 0o755

// Len returns the number of inodes. The root is inode 0.
func (t *Tree) Len() int { return len(t.inodes) }

// Inode returns an inode.
func (t *Tree) Inode(i int) Inode {
	r := t.inodes[i]
	switch r.layer {
	case dirRef:
		return t.dirs[r.entry].Inode
	case whiteoutRef:
		return Inode{Mode: os.ModeDevice | os.ModeCharDevice, Nlink: 1, Whiteout: true}
	}
	l := t.layers[r.layer]
	e := l.x.At(int(r.entry))
	n := makeInode(&e)
	n.Nlink = 1 + l.names[r.entry]
	return n
}

// Entry says which entry of which layer an inode is of; both are -1 for directories and
// whiteouts, which may be of several.
func (t *Tree) Entry(i int) (layer, entry int) {
	r := t.inodes[i]
	if r.layer < 0 {
		return -1, -1
	}
	return int(r.layer), int(r.entry)
}

// Names yields the names in an inode that is a directory, sorted by their bytes, and their
// inodes. Others have none.
func (t *Tree) Names(i int) iter.Seq2[string, int] {
	return func(yield func(string, int) bool) {
		r := t.inodes[i]
		if r.layer != dirRef {
			return
		}
		d := &t.dirs[r.entry]
		for _, n := range t.names[d.first : d.first+d.count] {
			if !yield(t.layers[n.layer].x.name(n.entry), int(n.inode)) {
				return
			}
		}
	}
}

// Implied yields the directories whose owner, mode and time what lies below decides on, and
// their paths, which begin with a slash; that of the root is empty. Set may be called
// meanwhile.
func (t *Tree) Implied() iter.Seq2[int, string] {
	type frame struct {
		inode int
		path  string
	}
	return func(yield func(int, string) bool) {
		for stack := []frame{{}}; len(stack) > 0; {
			f := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if t.dirs[t.inodes[f.inode].entry].Implied && !yield(f.inode, f.path) {
				return
			}
			for name, inode := range t.Names(f.inode) {
				if t.inodes[inode].layer == dirRef {
					stack = append(stack, frame{inode, f.path + "/" + name})
				}
			}
		}
	}
}

// HasImplied says whether there are any.
func (t *Tree) HasImplied() bool {
	for i := range t.dirs {
		if t.dirs[i].Implied {
			return true
		}
	}
	return false
}

// Set changes an inode that is a directory, before others read the tree.
func (t *Tree) Set(i int, n Inode) { t.dirs[t.inodes[i].entry].Inode = n }

// makeInode gives an entry as containerd's extraction and the kernel show it.
func makeInode(e *Entry) Inode {
	n := Inode{Digest: e.Digest, Target: e.Target, Extra: e.Extra, Size: e.Size, Mode: e.Mode, UID: e.UID, GID: e.GID}
	n.Mtime, n.MtimeNsec = boundTime(e.Mtime, e.MtimeNsec)
	switch {
	case e.Mode.Type() == os.ModeSymlink:
		n.Mode = os.ModeSymlink | os.ModePerm
		n.Size = int64(len(e.Target))
	case e.Mode&os.ModeDevice != 0:
		if major, minor := cutDevice(e.Device()); e.Extra != nil && (major != e.Extra.Major || minor != e.Extra.Minor) {
			x := *e.Extra
			x.Major, x.Minor = major, minor
			n.Extra = &x
		}
	}
	if xattrs := shownXattrs(e); len(xattrs) != len(e.Xattrs()) {
		x := *n.Extra
		x.Xattrs = xattrs
		n.Extra = &x
	}
	return n
}

// shownXattrs returns those of an entry that the kernel takes: it knows three namespaces
// besides trusted, and user only on files and directories. containerd goes on without
// the others.
func shownXattrs(e *Entry) []Xattr {
	all := e.Xattrs()
	shown := func(a Xattr) bool {
		if strings.HasPrefix(a.Name, "user.") {
			return e.Mode.IsRegular() || e.Mode.IsDir()
		}
		return strings.HasPrefix(a.Name, "security.") || strings.HasPrefix(a.Name, "system.")
	}
	for i, a := range all {
		if shown(a) {
			continue
		}
		some := append([]Xattr(nil), all[:i]...)
		for _, a := range all[i:] {
			if shown(a) {
				some = append(some, a)
			}
		}
		return some
	}
	return all
}

// boundTime is what containerd sets: the epoch for whatever is before it, or does not fit
// 64 bits of nanoseconds.
func boundTime(sec int64, nsec uint32) (int64, uint32) {
	t := time.Unix(sec, int64(nsec))
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return 0, 0
	}
	return sec, nsec
}
