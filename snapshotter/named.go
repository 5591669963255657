//go:build linux

package snapshotter

import (
	"iter"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
)

// named yields what of the tables has the given CIDs, in their order: files, and leaves of files
// of several. Others have no business here, whoever named them.
func named(tables []*fileTable, cids []cid.Cid) iter.Seq[fetch.Part] {
	return func(yield func(fetch.Part) bool) {
		files := make([]ipfs.File, len(cids)) // of no leaves: none
		leaves := make(map[string]fetch.Part) // by their keys; of no file until it is found
		for i, c := range cids {
			var ok bool
			if files[i], ok = findIn(tables, c); !ok && c.Type() == cid.Raw {
				leaves[c.KeyString()] = fetch.Part{}
			}
		}
		findLeaves(tables, leaves)
		for i, c := range cids {
			part := fetch.Part{File: files[i], Leaf: fetch.AllLeaves}
			if !part.Cid.Defined() {
				part = leaves[c.KeyString()]
			}
			if part.Cid.Defined() && !yield(part) {
				return
			}
		}
	}
}

// findIn returns the file of the tables that has this CID.
func findIn(tables []*fileTable, c cid.Cid) (ipfs.File, bool) {
	for _, t := range tables {
		if i, ok := t.find(c); ok {
			return t.file(i), true
		}
	}
	return ipfs.File{}, false
}

// findLeaves says of leaves which file of the tables has them: one of those that do.
func findLeaves(tables []*fileTable, leaves map[string]fetch.Part) {
	left := len(leaves)
	for _, t := range tables {
		for i := range t.files {
			if left == 0 {
				return
			}
			if t.files[i].leaves < 0 {
				continue
			}
			f := t.file(i)
			for n := range f.NumLeaves() {
				key := f.Leaf(n).KeyString()
				if part, ok := leaves[key]; ok && !part.Cid.Defined() {
					leaves[key] = fetch.Part{File: f, Leaf: n}
					left--
				}
			}
		}
	}
}
