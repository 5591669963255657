package fetch

import (
	"os"

	"github.com/hinshun/ipcs/ipfs"
)

// Local opens the file if all of it is in the store.
func (f *Fetcher) Local(file ipfs.File) (*os.File, bool) {
	o, err := f.store.OpenFile(file)
	return o, err == nil
}

// Has says whether all of a file is in the store.
func (f *Fetcher) Has(file ipfs.File) bool { return f.store.HasFile(file) }

// Here returns which leaves are here of a file that is not complete, in their order.
func (f *Fetcher) Here(file ipfs.File) (leaves []int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.files[fileKey{file.Cid, file.Size}]
	if st == nil {
		return nil
	}
	for i := range st.NumLeaves() {
		if st.partial.Have(i) {
			leaves = append(leaves, i)
		}
	}
	return leaves
}
