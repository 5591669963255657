package layer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
)

// entries is an index in one of its forms: an Index, one that is still encoded, or the tree
// that a tar made. The depth of an entry says what its parent is, and Parent may be wrong.
type entries interface {
	count() int
	// each calls f with every entry in order, which may use it until it returns.
	each(f func(i, depth int, e *Entry) error) error
	// at returns entry i, and its depth.
	at(i int) (e Entry, depth int)
}

func (x *Index) count() int { return len(x.Entries) }

func (x *Index) at(i int) (Entry, int) {
	depth := 0
	for p := x.Entries[i].Parent; p >= 0; p = x.Entries[p].Parent {
		depth++
	}
	return x.Entries[i], depth
}

func (x *Index) each(f func(i, depth int, e *Entry) error) error {
	var path []int32 // the entries from the root down to the one before
	for i := range x.Entries {
		e := &x.Entries[i]
		for len(path) > 0 && path[len(path)-1] != e.Parent {
			path = path[:len(path)-1]
		}
		if len(path) == 0 && (i > 0 || e.Parent != -1) {
			return fmt.Errorf("entry %d (%q): %w: its parent is not a directory before it", i, e.Name, ErrIndex)
		}
		if err := f(i, len(path), e); err != nil {
			return err
		}
		path = append(path, int32(i))
	}
	return nil
}

// fileAt returns the file of entry i, if it is one that holds its inode.
func fileAt(x entries, i int) (ipfs.File, bool) {
	e, _ := x.at(i)
	if e.Link >= 0 || e.Whiteout || !e.Mode.IsRegular() {
		return ipfs.File{}, false
	}
	return e.File(), true
}

// pathOf returns the path of entry i, for what is said of it.
func pathOf(x entries, i int) string {
	var names []string
	e, depth := x.at(i)
	for ; depth > 0; i-- {
		above, d := x.at(i)
		if d <= depth {
			names, depth = append(names, above.Name), d-1
		}
	}
	if len(names) == 0 {
		return e.Name
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// countFiles counts the regular files, hard links once.
func countFiles(x entries) int {
	n := 0
	for i := range x.count() {
		if _, ok := fileAt(x, i); ok {
			n++
		}
	}
	return n
}
