package fetch

import (
	"iter"

	"github.com/hinshun/ipcs/ipfs"
)

// A Part is a file, or one leaf of it.
type Part struct {
	ipfs.File
	Leaf int // or AllLeaves
}

// AllLeaves is all of a file, as a Part.
const AllLeaves = -1

// size is that of what is to be got, in bytes.
func (p Part) size() int64 {
	if p.Leaf == AllLeaves {
		return p.Size
	}
	return int64(p.LeafLen(p.Leaf))
}

// leafSet are leaves of one file.
type leafSet map[int]struct{}

// name notes the leaves that somebody has named, until their files are here.
func (f *Fetcher) name(parts iter.Seq[Part]) {
	for part := range parts {
		if part.Leaf == AllLeaves || f.store.HasFile(part.File) {
			continue
		}
		key := fileKey{part.Cid, part.Size}
		f.mu.Lock()
		if f.named[key] == nil {
			f.named[key] = make(leafSet)
		}
		f.named[key][part.Leaf] = struct{}{}
		f.mu.Unlock()
	}
}

// unname forgets the leaves of files of which nothing came: images come and go.
func (f *Fetcher) unname() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.named {
		if f.files[key] == nil {
			delete(f.named, key)
		}
	}
}

// namedLocked says whether all of these leaves were named.
func (f *Fetcher) namedLocked(st *file, first, last int) bool {
	named := f.named[st.key()]
	for i := first; i <= last; i++ {
		if _, ok := named[i]; !ok {
			return false
		}
	}
	return true
}

// has says whether a part is here. Of a file that is about to be finished, it is not: who gets the part
// does that, and waits.
func (f *Fetcher) has(part Part) bool {
	if part.Leaf != AllLeaves {
		f.mu.Lock()
		st := f.files[fileKey{part.Cid, part.Size}]
		here := st != nil && part.Leaf >= 0 && part.Leaf < st.NumLeaves() && st.partial.Have(part.Leaf) && !st.partial.Complete()
		f.mu.Unlock()
		if here {
			return true
		}
	}
	return f.store.HasFile(part.File)
}

// noteRead notes that somebody wants to read a leaf. It is called with Fetcher.mu.
func (st *file) noteRead(leaf int) {
	if st.NumLeaves() <= SmallFile {
		return
	}
	if st.read == nil {
		st.read = make(leafSet)
	}
	st.read[leaf] = struct{}{}
}

// LeavesRead returns which leaves of a file were read since it began to come, in their order.
// That is not known of a file that is here, or of which nothing is, or of SmallFile leaves.
func (f *Fetcher) LeavesRead(file ipfs.File) (leaves []int, known bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.files[fileKey{file.Cid, file.Size}]
	if st == nil {
		return nil, false
	}
	for i := range st.NumLeaves() {
		if _, ok := st.read[i]; ok {
			leaves = append(leaves, i)
		}
	}
	return leaves, true
}
