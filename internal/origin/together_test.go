package origin_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// crowd is a node that waits for blocks which its peers come to have, and knows them as partners.
type crowd struct {
	*ipfstest.Memory
	self   string
	others func() []string
}

func (c *crowd) Partners() (string, []string) { return c.self, c.others() }

// Fetch implements ipfs.Fetcher: with patience, it waits.
func (c *crowd) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for {
		var rest []cid.Cid
		for _, one := range cids {
			if err := c.Memory.Fetch(ctx, []cid.Cid{one}, fn); err != nil {
				rest = append(rest, one)
				if lack := ipfs.LackOf(ctx); lack != nil {
					lack(one)
				}
			}
		}
		if cids = rest; len(cids) == 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		if ipfs.HastyOf(ctx) {
			return fmt.Errorf("%w", ipfs.ErrNotFound)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// TestTogether has many machines get one image at once that no peer has: the registry gives it little more than once.
func TestTogether(t *testing.T) {
	const machines = 10
	im := origintest.NewImage(t, 1, 400, 60<<10)
	place := &origintest.Place{Name: "place", Blobs: im.Blobs}
	var nodes []*crowd
	var names []string
	for i := range machines {
		names = append(names, fmt.Sprint("machine", i))
	}
	for _, name := range names {
		nodes = append(nodes, &crowd{ipfstest.NewMemory(), name, func() []string {
			return slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == name })
		}})
	}
	for _, n := range nodes {
		for _, other := range nodes {
			if n != other {
				n.Connect(other.Memory)
			}
		}
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		o := newOrigin(t, im, place)
		o.Recorded(im.Record, im.Image)
		src := origin.NewSource(n, o)
		wg.Go(func() {
			ctx := ipfs.WithRank(t.Context(), ipfs.Planned)
			for batch := range slices.Chunk(im.Layers[0], 100) {
				if err := src.Fetch(ctx, cids(batch), func(b ipfs.Block) error { return n.Put(ctx, b) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	var sent, size int64
	for _, r := range place.Requests() {
		sent += r.N
	}
	for _, l := range im.Image.Layers {
		size += l.Seed.Size
	}
	t.Logf("the registry sent it %.2f times", float64(sent)/float64(size))
	if sent > 2*size { // frames at the borders of batches are read twice, and heads by everybody
		t.Errorf("the registry sent %d bytes of %d", sent, size)
	}
}

// TestOthersDoOtherThings has partners that never bring what would be theirs: all comes all the same.
func TestOthersDoOtherThings(t *testing.T) {
	im := origintest.NewImage(t, 1, 400, 60<<10)
	o := newOrigin(t, im, &origintest.Place{Name: "place", Blobs: im.Blobs})
	o.Recorded(im.Record, im.Image)
	n := &crowd{ipfstest.NewMemory(), "self", func() []string { return []string{"a", "b", "c"} }}
	src := origin.NewSource(n, o)
	for batch := range slices.Chunk(im.Layers[0], 20) {
		fetchAll(t, src, batch)
	}
}
