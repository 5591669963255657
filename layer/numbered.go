package layer

import (
	"bytes"
	"slices"
)

// number puts the names in the order of the index. Nothing is looked up or changed after.
func (t *tree) number() {
	t.table, t.dirs = nameTable{}, nil
	t.order = make([]int32, 0, t.entries)
	stack := []int32{t.top()}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if n := t.inode(d); n.number < 0 || n.Whiteout {
			n.number = int32(len(t.order))
		}
		t.order = append(t.order, d)
		below := t.children(t.nodes.at(d))
		slices.SortFunc(below, func(a, b int32) int {
			return bytes.Compare(t.nameOf(t.nodes.at(b)), t.nameOf(t.nodes.at(a)))
		})
		stack = append(stack, below...)
	}
}

// settle makes the digests of the files of those of their leaves, which must be there, and
// returns how many files there are.
func (t *tree) settle() (files int, err error) {
	for i, d := range t.order {
		n := t.inode(d)
		if !n.Mode.IsRegular() || n.Whiteout || n.number != int32(i) {
			continue
		}
		files++
		if n.more == 0 || len(t.more[n.more].rest) == 0 {
			continue
		}
		f, err := t.content(n).file(nil)
		if err != nil {
			return 0, err
		}
		x := t.more[n.more]
		x.Leaves, x.rest = f.Leaves, nil
		copy(n.sum[:], sumOf(f.Cid))
	}
	return files, nil
}

// content returns what a file is on its way, before settle.
func (t *tree) content(n *inode) *content {
	c := &content{first: &n.sum, n: 1, size: n.Size}
	if n.more != 0 {
		c.rest = t.more[n.more].rest
		c.n += len(c.rest)
	}
	return c
}

func (t *tree) count() int { return len(t.order) }

// at makes entry i of the index, and says how deep it is.
func (t *tree) at(i int) (Entry, int) {
	depth := 0
	for d := t.order[i]; d > 0; d = t.nodes.at(d).parent {
		depth++
	}
	return t.entry(i), depth
}

func (t *tree) each(f func(i, depth int, e *Entry) error) error {
	var e Entry
	depth := make([]int32, 0, 64) // the nodes from the root down to this one
	for i, d := range t.order {
		for len(depth) > 0 && depth[len(depth)-1] != t.nodes.at(d).parent {
			depth = depth[:len(depth)-1]
		}
		e = t.entry(i)
		if err := f(i, len(depth), &e); err != nil {
			return err
		}
		depth = append(depth, d)
	}
	return nil
}

// entry makes entry i, but for its parent.
func (t *tree) entry(i int) Entry {
	d := t.nodes.at(t.order[i])
	n := t.inodes.at(d.inode)
	e := Entry{Name: string(t.nameOf(d)), Link: -1}
	if n.number != int32(i) && !n.Whiteout {
		e.Link = n.number
		return e
	}
	e.Mode, e.UID, e.GID, e.Size, e.Mtime, e.MtimeNsec = n.Mode, n.UID, n.GID, n.Size, n.Mtime, n.MtimeNsec
	e.Whiteout, e.Opaque, e.Implied, e.KeepXattrs = n.Whiteout, n.Opaque, n.Implied, n.KeepXattrs
	if n.more != 0 {
		x := t.more[n.more]
		e.Target = x.target
		if x.Leaves != "" || len(x.Xattrs) > 0 || x.Major != 0 || x.Minor != 0 {
			e.Extra = &x.Extra
		}
	}
	if n.Mode.IsRegular() && !n.Whiteout {
		e.Digest = string(n.sum[:])
	}
	return e
}
