//go:build linux

package snapshotter

import (
	"context"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// InUse returns a function that says of an object, or of a leaf of a file, whether a layer has it that
// a snapshot uses now. The error is of a layer whose files are not known, since its index is not here and
// cannot be had.
func (s *Snapshotter) InUse(ctx context.Context) (func(cid.Cid) bool, error) {
	var tables []*fileTable
	leaves := make(map[[sumSize]byte]struct{})
	for _, root := range s.files.roots() {
		t, err := s.tableOf(ctx, root)
		if err != nil {
			return nil, fmt.Errorf("find out which files layer %s has: %w", root, err)
		}
		tables = append(tables, t)
		for _, list := range t.leaves {
			for ; len(list) >= sumSize; list = list[sumSize:] {
				leaves[[sumSize]byte([]byte(list[:sumSize]))] = struct{}{}
			}
		}
	}
	return func(c cid.Cid) bool {
		if hash := c.Hash(); c.Type() == cid.Raw && len(hash) >= sumSize {
			leaf := [sumSize]byte([]byte(hash[len(hash)-sumSize:]))
			if _, ok := leaves[leaf]; ok && c.Equals(ipfs.RawCid(string(leaf[:]))) {
				return true
			}
		}
		for _, t := range tables {
			if _, ok := t.find(c); ok {
				return true
			}
		}
		return false
	}, nil
}
