//go:build linux

package snapshotter

import (
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// A fileSet knows the files of the layers that committed snapshots use. It is what the
// lazy file system asks.
type fileSet struct {
	mu     sync.RWMutex
	layers map[cid.Cid]*layerFiles
}

// layerFiles are the files of one layer.
type layerFiles struct {
	uses  int        // committed snapshots
	table *fileTable // nil until the layer was opened in this process
}

func newFileSet() *fileSet { return &fileSet{layers: make(map[cid.Cid]*layerFiles)} }

// retain counts one more snapshot that uses a layer.
func (s *fileSet) retain(root cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layers[root]
	if l == nil {
		l = &layerFiles{}
		s.layers[root] = l
	}
	l.uses++
}

// release counts one less, and forgets a layer that has none: then it says so.
func (s *fileSet) release(root cid.Cid) (last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layers[root]
	if l == nil {
		return false
	}
	if l.uses--; l.uses > 0 {
		return false
	}
	delete(s.layers, root)
	return true
}

// known says whether the files of a layer are there.
func (s *fileSet) known(root cid.Cid) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.layers[root]
	return l != nil && l.table != nil
}

// learn takes up the files of a layer, which read returns, if any snapshot uses it. It returns
// them if they were not known before.
func (s *fileSet) learn(root cid.Cid, read func() (*fileTable, error)) (table *fileTable, added bool, err error) {
	if s.known(root) {
		return nil, false, nil
	}
	if table, err = read(); err != nil {
		return nil, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layers[root]
	if l == nil || l.table != nil {
		return nil, false, nil
	}
	l.table = table
	return table, true, nil
}

// roots returns the layers that snapshots use.
func (s *fileSet) roots() []cid.Cid {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Collect(maps.Keys(s.layers))
}

// claims yields what layers say of the file with this CID, and its path in one of them:
// once for each size. The CID of a file of several leaves proves its size.
func (s *fileSet) claims(c cid.Cid) iter.Seq2[ipfs.File, string] {
	return func(yield func(ipfs.File, string) bool) {
		var seen []int64
		for _, t := range s.tables(nil) {
			i, ok := t.find(c)
			if !ok || slices.Contains(seen, t.files[i].size) {
				continue
			}
			if !yield(t.file(i), t.path(i)) || t.files[i].leaves >= 0 {
				return
			}
			seen = append(seen, t.files[i].size)
		}
	}
}

// neighbours yields the other files in the directory of a file, in one of the layers that have it.
func (s *fileSet) neighbours(f ipfs.File) iter.Seq[ipfs.File] {
	return func(yield func(ipfs.File) bool) {
		for _, t := range s.tables(nil) {
			if i, ok := t.find(f.Cid); ok {
				t.beside(i, yield)
				return
			}
		}
	}
}

// tables returns those of the given layers that are there, or of all layers for nil.
func (s *fileSet) tables(roots []cid.Cid) []*fileTable {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var tables []*fileTable
	if roots == nil {
		roots = slices.Collect(maps.Keys(s.layers))
	}
	for _, root := range roots {
		if l := s.layers[root]; l != nil && l.table != nil {
			tables = append(tables, l.table)
		}
	}
	return tables
}

// inOrder returns the tables of all these layers, or nil if one is not there.
func (s *fileSet) inOrder(roots []cid.Cid) []*fileTable {
	if tables := s.tables(roots); len(tables) == len(roots) {
		return tables
	}
	return nil
}

// distinct calls fn with each file of the tables that is shown once, in the order of the
// digests, until fn returns false. All tables are sorted: it goes through them side by side.
func distinct(tables []*fileTable, shown shownFiles, fn func(ipfs.File) bool) {
	at := make([]int, len(tables))
	for {
		var least *fileRecord
		from := 0
		for n, t := range tables {
			for at[n] < len(t.files) && !shown.has(n, t.files[at[n]].entry) {
				at[n]++
			}
			if at[n] < len(t.files) && (least == nil || t.files[at[n]].compare(least) < 0) {
				least, from = &t.files[at[n]], n
			}
		}
		if least == nil || !fn(tables[from].file(at[from])) {
			return
		}
		for n, t := range tables {
			if at[n] < len(t.files) && t.files[at[n]].compare(least) == 0 {
				at[n]++
			}
		}
	}
}
