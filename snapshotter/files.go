//go:build linux

package snapshotter

import (
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
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

// release counts one less, and forgets a layer that has none.
func (s *fileSet) release(root cid.Cid) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.layers[root]
	if l == nil {
		return
	}
	if l.uses--; l.uses <= 0 {
		delete(s.layers, root)
	}
}

// known says whether the files of a layer are there.
func (s *fileSet) known(root cid.Cid) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.layers[root]
	return l != nil && l.table != nil
}

// learn takes up the files of a layer, if any snapshot uses it.
func (s *fileSet) learn(root cid.Cid, x *layer.Index) {
	if s.known(root) {
		return
	}
	table := newFileTable(x)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.layers[root]; l != nil && l.table == nil {
		l.table = table
	}
}

// find returns the file with this CID, and its path in one of the layers that have it.
func (s *fileSet) find(c cid.Cid) (f ipfs.File, path string, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, l := range s.layers {
		if l.table == nil {
			continue
		}
		if i, ok := l.table.find(c); ok {
			return l.table.file(i), l.table.path(i), true
		}
	}
	return ipfs.File{}, "", false
}

// tables returns those of the given layers that are there.
func (s *fileSet) tables(roots []cid.Cid) []*fileTable {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var tables []*fileTable
	for _, root := range roots {
		if l := s.layers[root]; l != nil && l.table != nil {
			tables = append(tables, l.table)
		}
	}
	return tables
}

// distinct calls fn with each file of the tables once, until fn returns false.
func distinct(tables []*fileTable, fn func(ipfs.File) bool) {
	for n, t := range tables {
	files:
		for i := range t.files {
			f := t.file(i)
			for _, earlier := range tables[:n] {
				if _, ok := earlier.find(f.Cid); ok {
					continue files
				}
			}
			if !fn(f) {
				return
			}
		}
	}
}
