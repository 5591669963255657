package layer

import (
	"archive/tar"
	"fmt"
	"hash/maphash"
	"os"
	"path"
	"strings"
)

// A tree is the directory that a tar is being applied to: what containerd has on disk,
// without the contents of files. A layer can have millions of names, so what a name and an
// inode take is kept small: they go by number and hold no pointers, which leaves the
// garbage collector nothing to look through. Node 0 is the root, inode 0 its inode.
type tree struct {
	nodes   arena[node]
	inodes  arena[inode]
	names   names
	more    []*more // what few inodes have; 0 is nobody's
	table   nameTable
	entries int      // names in the tree
	dirs    []dirHdr // directory headers, in the order of the tar
	held    int      // bytes of the headers so far, also of what was replaced
	work    int      // steps along paths so far
	order   []int32  // the nodes in the order of the index, once it is made
}

// A node is one name in the tree.
type node struct {
	parent, inode int32
	child, next   int32 // the first in a directory, and the next beside it; 0 for none
	name          uint32
	length        uint8 // of the name
	removed       bool
}

// An inode is what one or more names stand for: the fields of an Entry.
type inode struct {
	sum                                   [sumSize]byte // of a file; of its first leaf, until settle
	Mtime, Size                           int64
	MtimeNsec                             uint32
	Mode                                  os.FileMode
	UID, GID                              uint32
	number                                int32 // of the entry that holds the inode in the index; -1 before
	more                                  int32 // number of what few have; 0 for none
	Whiteout, Opaque, Implied, KeepXattrs bool
}

// more is what few inodes have.
type more struct {
	Extra
	target string
	rest   []*[sumSize]byte // of the leaves after the first, until settle
}

// xattrs returns the extended attributes of what may be nothing.
func (x *more) xattrs() []Xattr {
	if x == nil {
		return nil
	}
	return x.Xattrs
}

// dirHdr is what containerd keeps of a directory's header until the tar has ended.
type dirHdr struct {
	name string
	sec  int64
	nsec uint32
}

func newTree() *tree {
	t := &tree{entries: 1, more: make([]*more, 1)}
	t.table = nameTable{seed: maphash.MakeSeed()}
	t.table.grow(t)
	t.nodes.add(node{inode: t.inodes.add(inode{Mode: impliedMode, Implied: true, number: -1}), name: t.names.add("")})
	return t
}

// inode returns the inode of a node.
func (t *tree) inode(d int32) *inode { return t.inodes.at(t.nodes.at(d).inode) }

func (t *tree) nameOf(d *node) []byte { return t.names.bytes(d.name, d.length) }

// extra returns what few inodes have, to be changed.
func (t *tree) extra(n *inode) *more {
	if n.more == 0 {
		n.more = int32(len(t.more))
		t.more = append(t.more, new(more))
	}
	return t.more[n.more]
}

func (t *tree) top() int32 { return 0 }

func (t *tree) spend(n int) bool {
	t.work += n
	return t.work <= MaxWork
}

// hold counts what a header makes the tree hold. A tar compresses a thousandfold, and its
// index, which has a limit too, is not made before all of it was read.
func (t *tree) hold(hdr *tar.Header) error {
	const perEntry = 64
	t.held += perEntry + len(hdr.Name) + len(hdr.Linkname)
	for key, value := range hdr.PAXRecords {
		if strings.HasPrefix(key, xattrPrefix) {
			t.held += len(key) + len(value)
		}
	}
	if t.held > MaxMetadata {
		return fmt.Errorf("%w (%d bytes of names and attributes)", ErrTooLarge, MaxMetadata)
	}
	return nil
}

func (t *tree) lookup(dir int32, name string) (int32, bool) {
	d := *t.table.slot(t, dir, name) - 1
	return d, d >= 0 && !t.nodes.at(d).removed
}

func (t *tree) up(d int32) (int32, bool) { return t.nodes.at(d).parent, d > 0 }

func (t *tree) isDir(d int32) bool { return t.inode(d).Mode.IsDir() }

func (t *tree) symlink(d int32) (string, bool) {
	n := t.inode(d)
	if n.Mode.Type() != os.ModeSymlink {
		return "", false
	}
	return t.more[n.more].target, true
}

// add puts a name for the inode into a directory that has no such name.
func (t *tree) add(dir int32, base string, inode int32) (int32, error) {
	if err := checkName(base); err != nil {
		return 0, err
	}
	if t.entries++; t.entries > MaxEntries {
		return 0, fmt.Errorf("%w (%d entries)", ErrTooLarge, MaxEntries)
	}
	parent := t.nodes.at(dir)
	d := t.nodes.add(node{parent: dir, inode: inode, next: parent.child, name: t.names.add(base), length: uint8(len(base))})
	parent.child = d
	t.table.put(t, d)
	return d, nil
}

// remove takes a name and all that is below it out of the tree.
func (t *tree) remove(d int32) {
	below := []int32{d}
	for len(below) > 0 {
		d := t.nodes.at(below[len(below)-1])
		below = below[:len(below)-1]
		d.removed = true
		t.entries--
		below = append(below, t.children(d)...)
	}
}

// children returns what a directory has in it, in no order.
func (t *tree) children(d *node) []int32 {
	var out []int32
	for c := d.child; c != 0; c = t.nodes.at(c).next {
		if !t.nodes.at(c).removed {
			out = append(out, c)
		}
	}
	return out
}

// mkparent returns the directory with these names below the root, and makes what is
// missing of it.
func (t *tree) mkparent(names []string) (int32, error) {
	if len(names) >= MaxDepth {
		return 0, fmt.Errorf("%w (depth %d)", ErrTooLarge, MaxDepth)
	}
	d := t.top()
	for _, name := range names {
		next, ok := t.lookup(d, name)
		if !ok {
			n := inode{Mode: impliedMode, Implied: true, number: -1}
			if up := t.inode(d); up.Mode&os.ModeSetgid != 0 && d != t.top() {
				n.GID = up.GID // what the kernel does
			}
			var err error
			if next, err = t.add(d, name, t.inodes.add(n)); err != nil {
				return 0, err
			}
		}
		if !t.isDir(next) {
			return 0, fmt.Errorf("%w: %q is not a directory", ErrTar, path.Join(names...))
		}
		d = next
	}
	return d, nil
}
