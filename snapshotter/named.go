//go:build linux

package snapshotter

import (
	"cmp"
	"iter"
	"slices"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
)

// named yields what of the tables has the given CIDs, in their order: files, and leaves of files
// of several. Others have no business here, whoever named them.
func named(tables []*fileTable, cids []cid.Cid) iter.Seq[fetch.Part] {
	parts := make([]fetch.Part, len(cids)) // of no file where there is none
	var leaves []cid.Cid
	for i, c := range cids {
		f, ok := findIn(tables, c)
		if parts[i] = (fetch.Part{File: f, Leaf: fetch.AllLeaves}); !ok && c.Type() == cid.Raw {
			leaves = append(leaves, c)
		}
	}
	found := findLeaves(tables, leaves)
	return func(yield func(fetch.Part) bool) {
		for i, c := range cids {
			part := parts[i]
			if !part.Cid.Defined() {
				part = found[sumOf(c)]
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

// sumOf is the digest of a CID with sha2-256, as the leaves of files are listed.
func sumOf(c cid.Cid) string {
	hash := c.Hash()
	return string(hash[max(0, len(hash)-sumSize):])
}

// findLeaves says of leaves which file of the tables has them, by their digests. Of several, it
// is the one that has most of them: that is likely the one that was read.
func findLeaves(tables []*fileTable, leaves []cid.Cid) map[string]fetch.Part {
	found := make(map[string]fetch.Part, len(leaves))
	if len(leaves) == 0 {
		return found
	}
	for _, c := range leaves {
		found[sumOf(c)] = fetch.Part{}
	}
	type has struct {
		ipfs.File
		leaves []int
	}
	var files []has
	for _, t := range tables {
		for i := range t.files {
			if t.files[i].leaves < 0 {
				continue
			}
			f := has{File: t.file(i)}
			for n := range f.NumLeaves() {
				if _, ok := found[f.Leaves[n*sumSize:(n+1)*sumSize]]; ok {
					f.leaves = append(f.leaves, n)
				}
			}
			if len(f.leaves) > 0 {
				files = append(files, f)
			}
		}
	}
	slices.SortStableFunc(files, func(a, b has) int { return cmp.Compare(len(b.leaves), len(a.leaves)) })
	for _, f := range files {
		for _, n := range f.leaves {
			sum := f.Leaves[n*sumSize : (n+1)*sumSize]
			if !found[sum].Cid.Defined() {
				found[sum] = fetch.Part{File: f.File, Leaf: n}
			}
		}
	}
	return found
}
