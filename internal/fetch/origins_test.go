package fetch_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/ipfs"
)

// fromPeers says that blocks come from one peer after the other, of so many.
type fromPeers struct {
	*fetchtest.Source
	peers int
	given map[cid.Cid]string
}

func (s *fromPeers) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return s.Source.Fetch(ctx, cids, func(b ipfs.Block) error {
		if s.peers > 0 {
			b.From = fmt.Sprint("peer ", len(s.given)%s.peers)
		}
		s.given[b.Cid] = b.From
		return fn(b)
	})
}

// TestOrigin tells of each leaf which peer it came from, and nothing where the source does not
// say so.
func TestOrigin(t *testing.T) {
	for _, peers := range []int{0, 2} {
		src := &fromPeers{fetchtest.New(), peers, make(map[cid.Cid]string)}
		f := newCounting(t, src, false)
		files := slices.Concat(newFiles(t, src.Source, 1, 5, 300), newFiles(t, src.Source, 5000, 1, 2*ipfs.LeafSize+1))
		for _, file := range files { // one by one, so that given is of one goroutine at a time
			if err := f.Ensure(t.Context(), file); err != nil {
				t.Fatal(err)
			}
		}
		for _, file := range files {
			for i := range file.NumLeaves() {
				if peer, ok := f.Origin(file.Leaf(i)); ok != (peers > 0) || peer != src.given[file.Leaf(i)] {
					t.Errorf("leaf %d came from %q (%v), not from %q", i, peer, ok, src.given[file.Leaf(i)])
				}
			}
		}
		if _, ok := f.Origin(newFiles(t, src.Source, 9000, 1, 10)[0].Cid); ok {
			t.Error("the origin of a leaf that nobody fetched is known")
		}
	}
}
