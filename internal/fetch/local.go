package fetch

import (
	"fmt"
	"os"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Local opens the file if all of it is in the store.
func (f *Fetcher) Local(file ipfs.File) (*os.File, bool) {
	o, err := f.store.OpenFile(file)
	return o, err == nil
}

// Has says whether all of a file is in the store.
func (f *Fetcher) Has(file ipfs.File) bool { return f.store.HasFile(file) }

// HasLeaf says whether a leaf lies in a file that is incomplete.
func (f *Fetcher) HasLeaf(c cid.Cid) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at, ok := f.held[c.KeyString()]
	return ok && at.file.partial.Have(at.leaf) // it may have been evicted
}

// Leaf returns a leaf that lies in a file that is incomplete, for peers: it is verified. The error
// is ipfs.ErrNotFound, wrapped, if there is none.
func (f *Fetcher) Leaf(c cid.Cid) ([]byte, error) {
	f.mu.Lock()
	at, ok := f.held[c.KeyString()]
	f.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("leaf %s: %w", c, ipfs.ErrNotFound)
	}
	data := make([]byte, at.file.LeafLen(at.leaf))
	if _, err := at.file.partial.ReadAt(data, int64(at.leaf)*at.file.Layout.LeafSize()); err != nil {
		return nil, fmt.Errorf("leaf %s: %w (%w)", c, ipfs.ErrNotFound, err) // it was evicted, or is an object by now
	}
	if err := ipfs.Verify(c, data); err != nil {
		return nil, fmt.Errorf("leaf %s of a file that is incomplete: %w", c, err)
	}
	return data, nil
}
