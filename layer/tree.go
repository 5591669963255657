package layer

import (
	"archive/tar"
	"fmt"
	"os"
	"path"
	"sort"
	"strings"
)

// A tree is the directory that a tar is being applied to: what containerd has on disk,
// without the contents of files.
type tree struct {
	root    *dirent
	entries int      // names in the tree
	dirs    []dirHdr // directory headers, in the order of the tar
	held    int      // bytes of the headers so far, also of what was replaced
	work    int      // steps along paths so far
}

// A dirent is one name in the tree.
type dirent struct {
	name     string
	parent   *dirent
	children map[string]*dirent // of a directory
	*inode
}

// An inode is what one or more names stand for.
type inode struct {
	Entry   // Name, Parent and Link are set when the index is made
	content *content
	number  int32 // of the entry that holds the inode in the index; -1 before
}

// dirHdr is what containerd keeps of a directory's header until the tar has ended.
type dirHdr struct {
	name string
	sec  int64
	nsec uint32
}

func newTree() *tree {
	root := &inode{Entry: Entry{Mode: impliedMode, Implied: true}, number: -1}
	return &tree{root: &dirent{inode: root}, entries: 1}
}

func (t *tree) top() *dirent { return t.root }

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

func (t *tree) lookup(dir *dirent, name string) (*dirent, bool) {
	d, ok := dir.children[name]
	return d, ok
}

func (t *tree) up(d *dirent) (*dirent, bool) { return d.parent, d.parent != nil }

func (t *tree) isDir(d *dirent) bool { return d.Mode.IsDir() }

func (t *tree) symlink(d *dirent) (string, bool) {
	return d.Target, d.Mode.Type() == os.ModeSymlink
}

// add puts a name for the inode into a directory that has no such name.
func (t *tree) add(dir *dirent, name string, n *inode) (*dirent, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	if t.entries++; t.entries > MaxEntries {
		return nil, fmt.Errorf("%w (%d entries)", ErrTooLarge, MaxEntries)
	}
	// archive/tar cuts names out of the whole PAX header, which a copy lets go.
	name = strings.Clone(name)
	d := &dirent{name: name, parent: dir, inode: n}
	if dir.children == nil {
		dir.children = make(map[string]*dirent)
	}
	dir.children[name] = d
	return d, nil
}

// remove takes a name and all that is below it out of the tree.
func (t *tree) remove(d *dirent) {
	delete(d.parent.children, d.name)
	below := []*dirent{d}
	for len(below) > 0 {
		d := below[len(below)-1]
		below = below[:len(below)-1]
		t.entries--
		for _, c := range d.children {
			below = append(below, c)
		}
	}
}

// mkparent returns the directory with these names below the root, and makes what is
// missing of it.
func (t *tree) mkparent(names []string) (*dirent, error) {
	if len(names) >= MaxDepth {
		return nil, fmt.Errorf("%w (depth %d)", ErrTooLarge, MaxDepth)
	}
	d := t.root
	for _, name := range names {
		next := d.children[name]
		if next == nil {
			n := &inode{Entry: Entry{Mode: impliedMode, Implied: true}, number: -1}
			if d.Mode&os.ModeSetgid != 0 && d != t.root {
				n.GID = d.GID // what the kernel does
			}
			var err error
			if next, err = t.add(d, name, n); err != nil {
				return nil, err
			}
		}
		if !t.isDir(next) {
			return nil, fmt.Errorf("%w: %q is not a directory", ErrTar, path.Join(names...))
		}
		d = next
	}
	return d, nil
}

// index makes the index of the tree, without the digests of files: those are known when
// all leaves are hashed. It returns the inode of each entry beside it.
func (t *tree) index() (*Index, []*inode) {
	x := &Index{Entries: make([]Entry, 0, t.entries)}
	inodes := make([]*inode, 0, t.entries)
	type todo struct {
		*dirent
		parent int32
	}
	stack := []todo{{t.root, -1}}
	for len(stack) > 0 {
		d := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		number := int32(len(x.Entries))
		e := Entry{Link: d.number}
		if d.number < 0 || d.Whiteout {
			d.number = number
			e = d.Entry
			e.Link = -1
		}
		e.Name, e.Parent = d.name, d.parent
		x.Entries = append(x.Entries, e)
		inodes = append(inodes, d.inode)
		for _, name := range sortedNames(d.children, true) {
			stack = append(stack, todo{d.children[name], number})
		}
	}
	return x, inodes
}

func sortedNames(children map[string]*dirent, reverse bool) []string {
	names := make([]string, 0, len(children))
	for name := range children {
		names = append(names, name)
	}
	sort.Strings(names)
	if reverse {
		for i, j := 0, len(names)-1; i < j; i, j = i+1, j-1 {
			names[i], names[j] = names[j], names[i]
		}
	}
	return names
}
