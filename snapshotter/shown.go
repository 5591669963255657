//go:build linux

package snapshotter

import (
	"context"
	"iter"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// shownFiles are the entries of the layers of a run, bottom first, that are seen where it is
// mounted. What upper layers hide nobody reads: it is not fetched ahead of need.
type shownFiles []bitset

// has says whether an entry of layer n is seen. Without shownFiles, all are.
func (s shownFiles) has(n int, entry int32) bool { return s == nil || s[n].has(entry) }

type bitset []uint64

func (b bitset) set(i int32)      { b[i/64] |= 1 << (i % 64) }
func (b bitset) has(i int32) bool { return b[i/64]&(1<<(i%64)) != 0 }

// show notes what a run shows, whose layers were merged.
func (s *Snapshotter) show(r run, merged *layer.Tree) {
	c, ok := s.chains.get(r.id)
	tables := s.files.inOrder(r.roots)
	if !ok || tables == nil {
		return // its snapshots have just gone
	}
	shown := make(shownFiles, len(tables))
	for n, t := range tables {
		shown[n] = make(bitset, (len(t.parents)+63)/64)
	}
	for i := range merged.Len() {
		if n, entry := merged.Entry(i); n >= 0 {
			shown[n].set(tables[n].first(int32(entry)))
		}
	}
	c.shown.Store(&shown)
}

// findShown finds out what a run shows whose image a daemon before this one has written.
func (s *Snapshotter) findShown(ctx context.Context, r run) error {
	if c, ok := s.chains.get(r.id); !ok || c.shown.Load() != nil {
		return nil
	}
	merged, err := s.merge(ctx, r)
	if err == nil {
		s.show(r, merged)
	}
	return err
}

// shownFiles returns what a run shows, or nil if that is not known.
func (c *chain) shownFiles() shownFiles {
	if shown := c.shown.Load(); shown != nil {
		return *shown
	}
	return nil
}

// filesOf yields the files that a run shows: those of the topmost layer first, and each layer's by
// their paths. Files that are alike are then fetched together, and compressed so.
func (s *Snapshotter) filesOf(r run) iter.Seq[ipfs.File] {
	return func(yield func(ipfs.File) bool) {
		c, ok := s.chains.get(r.id)
		tables := s.files.inOrder(r.roots)
		if !ok || tables == nil {
			return // it is no longer wanted
		}
		shown := c.shownFiles()
		for n := len(tables) - 1; n >= 0; n-- {
			t := tables[n]
			for _, i := range t.byEntry() {
				if i >= 0 && shown.has(n, t.files[i].entry) && !yield(t.file(int(i))) {
					return
				}
			}
		}
	}
}
