package layer

import (
	"fmt"
	"os"
)

// Merge lays layers on top of each other, bottom first, and returns what containerd's
// overlayfs would show. Without a bottom, the group lies above other layers: whiteouts
// and opaque marks are kept for them.
//
// Directories are merged breadth first: the children of one in all layers are sorted, so
// that one pass finds for each name the layers that have it, topmost first. Nothing is
// recursive, and the work is that of the entries of all layers. Implied directories have
// their paths looked up below, which MaxWork bounds.
func Merge(layers []*Encoded, bottom bool) (*Tree, error) {
	m, err := newMerger(layers)
	if err != nil {
		return nil, err
	}
	return m.merge(bottom)
}

func (m *merger) merge(bottom bool) (*Tree, error) {
	root := frame{below: !bottom}
	for k := len(m.layers) - 1; k >= 0; k-- {
		m.parts = append(m.parts, part{int32(k), 0})
	}
	root.hi = int32(len(m.parts))
	m.addDir(Inode{Mode: rootMode, Nlink: 2})
	m.frames = append(m.frames, root)
	for i := 0; i < len(m.frames); i++ {
		m.directory(int32(i))
		if m.work > MaxWork {
			return nil, fmt.Errorf("merge %d layers: %w (%d steps along implied directories)", len(m.layers), ErrTooLarge, MaxWork)
		}
	}
	for i := range m.layers {
		m.tree.layers = append(m.tree.layers, treeLayer{m.layers[i].x, m.layers[i].names})
	}
	tree := m.tree // lets go of the merger
	return &tree, nil
}

// A merger is one call of Merge.
type merger struct {
	tree   Tree
	layers []mergeLayer
	frames []frame // by number of the directory
	parts  []part
	at     []position // of the directory at hand
	work   int        // steps along paths so far
}

// A part is one layer's entry for a path.
type part struct{ layer, entry int32 }

// A frame is a directory whose children are still to be merged.
type frame struct {
	lo, hi int32 // the layers that show through: m.parts[lo:hi], topmost first
	below  bool  // something may lie below the group and show through
}

// A position is where one layer's part of a directory has been merged to.
type position struct {
	part        // the next child; past the end when all were
	end   int32 // of the directory
	child Entry // the next one
}

// A mergeLayer is an index with what Merge needs beside it.
type mergeLayer struct {
	x      *Encoded
	end    []int32          // by entry: the entry after its subtree
	names  map[int32]uint32 // by first entry of hard links: how many other names there are
	inodes map[int32]int32  // by first entry of hard links: the inode, once one is shown

	work            *int    // the merger's
	parents         []int32 // by entry; see needParents
	start, children []int32 // by entry: children[start[i]:start[i+1]]; see sortChildren
}

func newMerger(layers []*Encoded) (*merger, error) {
	m := &merger{layers: make([]mergeLayer, len(layers))}
	total, most := 0, 0
	for _, x := range layers {
		if total += x.Len(); total > MaxMerge {
			return nil, fmt.Errorf("merge %d layers: %w (%d entries)", len(layers), ErrTooLarge, MaxMerge)
		}
		most = max(most, x.Len())
	}
	for k, x := range layers {
		var err error
		if m.layers[k], err = newMergeLayer(x); err != nil {
			return nil, fmt.Errorf("merge %d layers: layer %d: %w", len(layers), k, err)
		}
		m.layers[k].work = &m.work
	}
	m.tree.names = make([]shownName, 0, most)
	m.tree.inodes = make([]ref, 0, most)
	return m, nil
}

func newMergeLayer(x *Encoded) (mergeLayer, error) {
	l := mergeLayer{x: x, end: make([]int32, x.Len())}
	var path []int32 // the entries from the root down to the one before
	err := x.each(func(i, depth int, e *Entry) error {
		for _, p := range path[depth:] {
			l.end[p] = int32(i)
		}
		path = append(path[:depth], int32(i))
		if e.Link >= 0 {
			if l.names == nil {
				l.names, l.inodes = make(map[int32]uint32), make(map[int32]int32)
			}
			l.names[e.Link]++
		}
		return nil
	})
	for _, p := range path {
		l.end[p] = int32(x.Len())
	}
	return l, err
}

// holder returns the entry that holds the inode of an entry, and its number.
func (l *mergeLayer) holder(i int32, e *Entry) (int32, *Entry) {
	if e.Link < 0 {
		return i, e
	}
	h := l.x.At(int(e.Link))
	return e.Link, &h
}

// isWhiteout says whether overlayfs takes what holds an inode for a whiteout: character
// devices 0:0 are, whoever made them. The kernel cuts device numbers to 12 and 20 bits.
func isWhiteout(e *Entry) bool {
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

// read decodes the child that a position has come to.
func (m *merger) read(p *position) {
	if p.entry < p.end {
		p.child = m.layers[p.layer].x.At(int(p.entry))
	}
}

// directory merges the children of one directory.
func (m *merger) directory(dir int32) {
	f := m.frames[dir]
	m.at = m.at[:0]
	for _, p := range m.parts[f.lo:f.hi] {
		at := position{part: part{p.layer, p.entry + 1}, end: m.layers[p.layer].end[p.entry]}
		m.read(&at)
		m.at = append(m.at, at)
	}
	first := int32(len(m.tree.names))
	var same []*position // those that have the name, topmost first
	for {
		same = same[:0]
		for i := range m.at {
			p := &m.at[i]
			if p.entry >= p.end {
				continue
			}
			if len(same) > 0 && p.child.Name < same[0].child.Name {
				same = same[:0]
			}
			if len(same) == 0 || p.child.Name == same[0].child.Name {
				same = append(same, p)
			}
		}
		if len(same) == 0 {
			break
		}
		m.name(dir, same)
		for _, p := range same {
			p.entry = m.layers[p.layer].end[p.entry]
			m.read(p)
		}
	}
	d := &m.tree.dirs[dir]
	d.first, d.count = first, int32(len(m.tree.names))-first
}

// name merges one name, which the layers of same have.
func (m *merger) name(dir int32, same []*position) {
	top, below := same[0], m.frames[dir].below
	at, holder := m.layers[top.layer].holder(top.entry, &top.child)
	if isWhiteout(holder) {
		if below {
			m.add(top.part, ref{whiteoutRef, 0})
		}
		return
	}
	if !holder.Mode.IsDir() {
		m.addName(top.part, at)
		return
	}
	sub := frame{lo: int32(len(m.parts)), below: below}
	for _, p := range same {
		if !p.child.Mode.IsDir() {
			sub.below = false
			break
		}
		m.parts = append(m.parts, p.part)
		if p.child.Opaque {
			sub.below = false
			break
		}
	}
	sub.hi = int32(len(m.parts))
	n := m.dirInode(top.part, below)
	n.Opaque = below && !sub.below
	m.tree.dirs[dir].Nlink++
	m.tree.names = append(m.tree.names, shownName{top.part, int32(len(m.tree.inodes))})
	m.addDir(n)
	m.frames = append(m.frames, sub)
}

// add adds a name with an inode of its own.
func (m *merger) add(name part, inode ref) {
	m.tree.names = append(m.tree.names, shownName{name, int32(len(m.tree.inodes))})
	m.tree.inodes = append(m.tree.inodes, inode)
}

func (m *merger) addDir(n Inode) {
	m.tree.inodes = append(m.tree.inodes, ref{dirRef, int32(len(m.tree.dirs))})
	m.tree.dirs = append(m.tree.dirs, treeDir{Inode: n})
}

// addName adds a name for what is no directory, whose inode an entry of the layer holds.
// Names of one inode share it; its number of links is that in its own layer, whatever hides
// some of them.
func (m *merger) addName(name part, holder int32) {
	l := &m.layers[name.layer]
	if n, shared := l.inodes[holder]; shared {
		m.tree.names = append(m.tree.names, shownName{name, n})
		return
	}
	if l.names[holder] > 0 {
		l.inodes[holder] = int32(len(m.tree.inodes))
	}
	m.add(name, ref{name.layer, holder})
}
