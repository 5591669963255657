package fetch_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestSourceIsToldTheRank finds that the source knows what is urgent, and how large it is.
func TestSourceIsToldTheRank(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	var mu sync.Mutex
	ranks, sizes := map[cid.Cid]ipfs.Rank{}, map[cid.Cid]int64{}
	src.SetHook(func(ctx context.Context, c cid.Cid) error {
		mu.Lock()
		defer mu.Unlock()
		ranks[c], sizes[c] = ipfs.RankOf(ctx), ipfs.BlockSizeOf(ctx)
		return nil
	})
	read, leaves := objectstest.NewFile(t, objectstest.Random(1, 3*ipfs.LeafSize))
	src.Add(leaves...)
	planned, spare := newFiles(t, src, 2, 1, 500), newFiles(t, src, 3, 1, 500)
	if _, err := f.ReadAt(t.Context(), read, make([]byte, 10), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Ensure(t.Context(), read); err != nil {
		t.Fatal(err)
	}
	if err := f.Prefetch(t.Context(), slices.Values(planned), fetch.Profile); err != nil {
		t.Fatal(err)
	}
	if err := f.Prefetch(t.Context(), slices.Values(spare), fetch.Fill); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for c, want := range map[cid.Cid]ipfs.Rank{
		leaves[0].Cid: ipfs.Demanded, leaves[1].Cid: ipfs.Ahead, leaves[2].Cid: ipfs.Ahead,
		planned[0].Cid: ipfs.Planned, spare[0].Cid: ipfs.Spare,
	} {
		if got, ok := ranks[c]; !ok || got != want {
			t.Errorf("%s was asked for with rank %d (%v), want %d", c, got, ok, want)
		}
	}
	for c, want := range map[cid.Cid]int64{leaves[0].Cid: ipfs.LeafSize, spare[0].Cid: 500} {
		if sizes[c] != want {
			t.Errorf("%s was asked for as one of blocks of %d bytes, want %d", c, sizes[c], want)
		}
	}
}
