package layer

import (
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

// A Tree is what a chain of layers shows: names, and the inodes behind them.
type Tree struct {
	Nodes  []Node // Nodes[0] is the root; the children of a directory stand together
	Inodes []Inode
}

// A Node is one name of a tree.
type Node struct {
	Name     string
	Inode    int32
	Children []int32 // numbers of nodes, sorted by the bytes of their names
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

// Merge lays layers on top of each other, bottom first, and returns what containerd's
// overlayfs would show. Without a bottom, the group lies above other layers: whiteouts
// and opaque marks are kept for them.
//
// Directories are merged breadth first: the children of one in all layers are sorted, so
// that one pass finds for each name the layers that have it, topmost first. Nothing is
// recursive, and the work is that of the entries of all layers. Implied directories have
// their paths looked up below, which MaxWork bounds.
func Merge(layers []*Index, bottom bool) (*Tree, error) {
	m, err := newMerger(layers)
	if err != nil {
		return nil, err
	}
	return m.merge(bottom)
}

func (m *merger) merge(bottom bool) (*Tree, error) {
	root := frame{node: 0, below: !bottom}
	for k := len(m.layers) - 1; k >= 0; k-- {
		m.parts = append(m.parts, part{int32(k), 0})
	}
	root.hi = int32(len(m.parts))
	m.tree.Nodes = append(m.tree.Nodes, Node{})
	m.tree.Inodes = append(m.tree.Inodes, Inode{Mode: rootMode, Nlink: 2})
	m.frames = append(m.frames, root)
	for i := 0; i < len(m.frames); i++ {
		m.directory(m.frames[i])
		if m.work > MaxWork {
			return nil, fmt.Errorf("merge %d layers: %w (%d steps along implied directories)", len(m.layers), ErrTooLarge, MaxWork)
		}
	}
	m.link()
	return &m.tree, nil
}

// A merger is one call of Merge.
type merger struct {
	tree   Tree
	layers []mergeLayer
	frames []frame
	parts  []part
	first  []int32 // by node: its first child
	count  []int32 // by node: number of children
	work   int     // steps along paths so far
}

// A part is one layer's entry for a path.
type part struct{ layer, entry int32 }

// A frame is a directory whose children are still to be merged.
type frame struct {
	node   int32
	lo, hi int32 // the layers that show through: m.parts[lo:hi], topmost first
	below  bool  // something may lie below the group and show through
}

// A mergeLayer is an index with what Merge needs beside it.
type mergeLayer struct {
	entries []Entry
	end     []int32          // by entry: the entry after its subtree
	names   map[int32]uint32 // by first entry of hard links: how many names there are
	inodes  map[int32]int32  // by first entry of hard links: the inode, once one is shown

	work            *int    // the merger's
	start, children []int32 // by entry: children[start[i]:start[i+1]]; see sortChildren
}

func newMerger(layers []*Index) (*merger, error) {
	m := &merger{layers: make([]mergeLayer, len(layers))}
	total, most := 0, 0
	for k, x := range layers {
		if total += len(x.Entries); total > MaxMerge {
			return nil, fmt.Errorf("merge %d layers: %w (%d entries)", len(layers), ErrTooLarge, MaxMerge)
		}
		if len(x.Entries) == 0 {
			return nil, fmt.Errorf("merge %d layers: layer %d: %w: no root entry", len(layers), k, ErrIndex)
		}
		most = max(most, len(x.Entries))
		m.layers[k] = newMergeLayer(x)
		m.layers[k].work = &m.work
	}
	m.tree.Nodes = make([]Node, 0, most)
	m.tree.Inodes = make([]Inode, 0, most)
	return m, nil
}

func newMergeLayer(x *Index) mergeLayer {
	l := mergeLayer{entries: x.Entries, end: make([]int32, len(x.Entries))}
	for i := len(l.end) - 1; i >= 0; i-- {
		e := &l.entries[i]
		l.end[i] = max(l.end[i], int32(i)+1)
		if i > 0 {
			l.end[e.Parent] = max(l.end[e.Parent], l.end[i])
		}
		if e.Link >= 0 {
			if l.names == nil {
				l.names, l.inodes = make(map[int32]uint32), make(map[int32]int32)
			}
			l.names[e.Link]++
		}
	}
	return l
}

// holder returns the entry that holds the inode of entry i.
func (l *mergeLayer) holder(i int32) int32 {
	if to := l.entries[i].Link; to >= 0 {
		return to
	}
	return i
}

// isWhiteout says whether overlayfs takes entry i for a whiteout: character devices 0:0
// are, whoever made them. The kernel cuts device numbers to 12 and 20 bits.
func (l *mergeLayer) isWhiteout(i int32) bool {
	e := &l.entries[l.holder(i)]
	if e.Whiteout {
		return true
	}
	if e.Mode.Type() != os.ModeDevice|os.ModeCharDevice {
		return false
	}
	major, minor := cutDevice(e.Device())
	return major == 0 && minor == 0
}

func cutDevice(major, minor uint32) (uint32, uint32) { return major & 0xfff, minor & 0xfffff }

// directory merges the children of one directory.
func (m *merger) directory(f frame) {
	cursors := make([]part, f.hi-f.lo) // the next child of each layer; entry is past the end when done
	ends := make([]int32, len(cursors))
	for i, p := range m.parts[f.lo:f.hi] {
		cursors[i] = part{p.layer, p.entry + 1}
		ends[i] = m.layers[p.layer].end[p.entry]
	}
	first := int32(len(m.tree.Nodes))
	var same []part // the layers that have the name, topmost first
	for {
		name, found := "", false
		same = same[:0]
		for i, c := range cursors {
			if c.entry >= ends[i] {
				continue
			}
			n := m.layers[c.layer].entries[c.entry].Name
			if !found || n < name {
				name, found = n, true
				same = same[:0]
			}
			if n == name {
				same = append(same, c)
			}
		}
		if !found {
			break
		}
		m.name(f, name, same)
		for i, c := range cursors {
			if c.entry < ends[i] && m.layers[c.layer].entries[c.entry].Name == name {
				cursors[i].entry = m.layers[c.layer].end[c.entry]
			}
		}
	}
	for len(m.first) < int(f.node)+1 {
		m.first, m.count = append(m.first, 0), append(m.count, 0)
	}
	m.first[f.node], m.count[f.node] = first, int32(len(m.tree.Nodes))-first
}

// name merges one name, which the layers of same have.
func (m *merger) name(f frame, name string, same []part) {
	top := same[0]
	l := &m.layers[top.layer]
	if l.isWhiteout(top.entry) {
		if f.below {
			m.add(name, Inode{Mode: os.ModeDevice | os.ModeCharDevice, Nlink: 1, Whiteout: true})
		}
		return
	}
	if !l.entries[top.entry].Mode.IsDir() {
		m.addName(name, top)
		return
	}
	sub := frame{node: int32(len(m.tree.Nodes)), lo: int32(len(m.parts)), below: f.below}
	for _, p := range same {
		e := &m.layers[p.layer].entries[p.entry]
		if !e.Mode.IsDir() {
			sub.below = false
			break
		}
		m.parts = append(m.parts, p)
		if e.Opaque {
			sub.below = false
			break
		}
	}
	sub.hi = int32(len(m.parts))
	n := m.dirInode(top, f.below)
	n.Opaque = f.below && !sub.below
	m.tree.Inodes[m.tree.Nodes[f.node].Inode].Nlink++
	m.add(name, n)
	m.frames = append(m.frames, sub)
}

func (m *merger) add(name string, n Inode) {
	m.tree.Nodes = append(m.tree.Nodes, Node{Name: name, Inode: int32(len(m.tree.Inodes))})
	m.tree.Inodes = append(m.tree.Inodes, n)
}

// addName adds a name for what is no directory. Names of one inode share it; its number
// of links is that in its own layer, whatever hides some of them.
func (m *merger) addName(name string, p part) {
	l := &m.layers[p.layer]
	at := l.holder(p.entry)
	n, shared := l.inodes[at]
	if shared {
		m.tree.Nodes = append(m.tree.Nodes, Node{Name: name, Inode: n})
		return
	}
	others := l.names[at]
	if others > 0 {
		l.inodes[at] = int32(len(m.tree.Inodes))
	}
	inode := makeInode(&l.entries[at])
	inode.Nlink = 1 + others
	m.add(name, inode)
}

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

// link gives the directories their children. They were added one after the other, so that
// all lists are parts of one.
func (m *merger) link() {
	all := make([]int32, len(m.tree.Nodes))
	for i := range all {
		all[i] = int32(i)
	}
	for i, n := range m.first {
		if c := m.count[i]; c > 0 {
			m.tree.Nodes[i].Children = all[n : n+c : n+c]
		}
	}
}
