package layer

import (
	"os"
	"path"
	"slices"
	"sort"
)

// dirInode gives a directory as the topmost layer that has it shows it. An implied one
// takes over what the next layer below that has the path says of it, as containerd does
// when it makes a directory for the sake of what is in it; that layer's directory may be
// implied in turn.
func (m *merger) dirInode(top part, below bool) Inode {
	var n Inode
	found, ended := false, false
	last := top
	for p, more := top, true; more; {
		last = p
		if p.entry == 0 { // by a symlink; a root is never implied, and has no attributes
			if !found {
				n, found = Inode{Mode: rootMode}, true
			}
			break
		}
		e := m.layers[p.layer].x.At(int(p.entry))
		switch {
		case e.Implied:
		case !found:
			n, found = makeInode(&e), true
		default:
			more := shownXattrs(&e)
			m.work += len(more) * len(n.Xattrs())
			n.addXattrs(more)
		}
		if !e.Implied && !e.KeepXattrs {
			break
		}
		p, more, ended = m.base(p)
	}
	if !found {
		n = Inode{Mode: impliedMode, GID: m.impliedGroup(last), Implied: below && !ended}
	}
	n.Nlink = 2
	return n
}

// impliedGroup returns the group of an implied directory that no layer below has: that of
// the directory it was made in, where that has the setgid bit, as the kernel does. If that
// one was implied itself when it happened, the bit came from a layer below.
func (m *merger) impliedGroup(p part) uint32 {
	l := &m.layers[p.layer]
	e := l.x.At(int(p.entry))
	up := part{p.layer, l.parent(p.entry)}
	if u := l.x.At(int(up.entry)); e.GID != 0 || !u.Implied && !u.KeepXattrs {
		return e.GID
	}
	for {
		from, ok, _ := m.base(up)
		if !ok || from.entry == 0 {
			return 0
		}
		f := m.layers[from.layer].x.At(int(from.entry))
		if !f.Implied {
			if f.Mode&os.ModeSetgid != 0 {
				return f.GID
			}
			return 0
		}
		up = from
	}
}

// base returns the directory that an implied one was made after: what the first layer
// below has at its path. ended says that this is no directory.
func (m *merger) base(p part) (from part, ok, ended bool) {
	if m.work > MaxWork {
		return part{}, false, true // Merge ends when this directory does
	}
	names := m.names(p)
	for k := p.layer - 1; k >= 0; k-- {
		m.work += 1 + len(names)
		at, exists, err := m.layers[k].find(names)
		if err != nil {
			return part{}, false, true
		}
		if exists {
			isDir := m.layers[k].isDir(at)
			return part{k, at}, isDir, !isDir
		}
	}
	return part{}, false, false
}

// addXattrs adds what the inode does not have.
func (n *Inode) addXattrs(more []Xattr) {
	all := slices.Clone(n.Xattrs())
	for _, a := range more {
		if findXattr(all, a.Name) < 0 {
			all = append(all, a)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	if len(all) > 0 {
		n.Extra = &Extra{Xattrs: all}
	}
}

// names returns the path of an entry.
func (m *merger) names(p part) []string {
	l := &m.layers[p.layer]
	var names []string
	for i := p.entry; i > 0; i = l.parent(i) {
		names = append(names, l.x.name(i))
	}
	slices.Reverse(names)
	return names
}

// find looks up a path in one layer, symlinks of that layer followed as containerd does.
func (l *mergeLayer) find(names []string) (at int32, ok bool, err error) {
	l.sortChildren()
	for i, name := range names {
		if at, ok = l.lookup(at, name); !ok {
			return 0, false, nil
		}
		if i == len(names)-1 || l.isDir(at) {
			continue
		}
		break
	}
	if l.isDir(at) {
		return at, true, nil
	}
	resolved, err := resolve[int32](l, path.Join(names...))
	if err != nil {
		return 0, false, err
	}
	steps := 0
	return lstat[int32](l, resolved, &steps)
}

// parent returns the parent of an entry. Few merges need any.
func (l *mergeLayer) parent(i int32) int32 {
	if l.parents == nil {
		l.parents = make([]int32, len(l.end))
		for p := range l.end {
			// A child begins where the one before it ends.
			for c := int32(p) + 1; c < l.end[p]; c = l.end[c] {
				l.parents[c] = int32(p)
			}
		}
	}
	return l.parents[i]
}

// sortChildren makes the lists that lookup searches: few merges need them.
func (l *mergeLayer) sortChildren() {
	if l.start != nil {
		return
	}
	l.start = make([]int32, len(l.end)+1)
	l.children = make([]int32, 0, len(l.end))
	for p := range l.end {
		for c := int32(p) + 1; c < l.end[p]; c = l.end[c] {
			l.children = append(l.children, c)
		}
		l.start[p+1] = int32(len(l.children))
	}
}

func (l *mergeLayer) top() int32 { return 0 }

func (l *mergeLayer) spend(n int) bool {
	*l.work += n
	return *l.work <= MaxWork
}

func (l *mergeLayer) lookup(dir int32, name string) (int32, bool) {
	list := l.children[l.start[dir]:l.start[dir+1]]
	i, ok := slices.BinarySearchFunc(list, name, func(i int32, name string) int {
		switch n := l.x.name(i); {
		case n < name:
			return -1
		case n > name:
			return 1
		}
		return 0
	})
	if !ok {
		return 0, false
	}
	return list[i], true
}

func (l *mergeLayer) up(i int32) (int32, bool) { return l.parent(i), i > 0 }

func (l *mergeLayer) isDir(i int32) bool {
	e := l.x.At(int(i))
	return e.Mode.IsDir()
}

func (l *mergeLayer) symlink(i int32) (string, bool) {
	e := l.x.At(int(i))
	_, holder := l.holder(i, &e)
	return holder.Target, holder.Mode.Type() == os.ModeSymlink
}
