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
