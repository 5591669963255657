package origin_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// far is a node whose peers take a while for each block, and have all.
type far struct {
	*ipfstest.Memory
	first, each atomic.Int64 // nanoseconds
}

func (n *far) set(first, each time.Duration) { n.first.Store(int64(first)); n.each.Store(int64(each)) }

func (n *far) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	wait := n.first.Load()
	for _, c := range cids {
		if err := pause(ctx, time.Duration(wait+n.each.Load())); err != nil {
			return err
		}
		wait = 0
		err := n.Memory.Fetch(ctx, []cid.Cid{c}, func(b ipfs.Block) error {
			b.From = "peer"
			return fn(b)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// farPlace is a place that takes a while for each request, and whose link all requests share.
type farPlace struct {
	*origintest.Place
	first time.Duration
	each  time.Duration // for a megabyte
	bytes atomic.Int64  // that were asked for
	fails atomic.Bool
	asked atomic.Int64 // while it fails

	mu   sync.Mutex
	free time.Time // when the link will be
}

func (p *farPlace) Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	p.bytes.Add(n)
	if p.fails.Load() {
		p.asked.Add(1)
		return nil, fmt.Errorf("429: %w", origin.ErrAway)
	}
	if err := pause(ctx, p.first); err != nil {
		return nil, err
	}
	body, err := p.Place.Range(ctx, d, off, n)
	return slowBody{ctx, body, p}, err
}

// slowBody comes over the link of a place.
type slowBody struct {
	ctx context.Context
	io.ReadCloser
	place *farPlace
}

func (b slowBody) Read(out []byte) (int, error) {
	n, err := b.ReadCloser.Read(out[:min(len(out), 16<<10)])
	p := b.place
	p.mu.Lock()
	if now := time.Now(); p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(n) * p.each / (1 << 20))
	came := time.Until(p.free)
	p.mu.Unlock()
	if perr := pause(b.ctx, came); perr != nil {
		return 0, perr
	}
	return n, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// farSource is a source with both, and an image of 400 blocks of 30 kB or so.
func farSource(t *testing.T, first, each time.Duration) (src *origin.Source, peers *far, place *farPlace, list []ipfs.Block) {
	t.Helper()
	im := origintest.NewImage(t, 1, 400, 60<<10)
	peers = &far{Memory: ipfstest.NewMemory()}
	put(t, peers.Memory, im.Layers[0])
	place = &farPlace{Place: &origintest.Place{Name: "place", Blobs: im.Blobs}, first: first, each: each}
	return origin.NewSource(peers, newFarOrigin(t, im, place)), peers, place, im.Layers[0]
}

// newFarOrigin knows an image that a place has.
func newFarOrigin(t *testing.T, im *origintest.Image, place *farPlace) *origin.Origin {
	t.Helper()
	o, err := origin.New(origin.Options{Repository: func(string, bool) (origin.Place, error) { return place, nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	o.Located(im.Record, "place")
	o.Recorded(im.Record, im.Image)
	return o
}

// wait is how long it takes, in the time of the bubble.
func wait(ctx context.Context, t *testing.T, src *origin.Source, list []ipfs.Block) time.Duration {
	t.Helper()
	began := time.Now()
	fetchWith(ipfs.WithBlockSize(ctx, 30<<10), t, src, list)
	return time.Since(began)
}

// TestRanked has peers that never cease to bring something, and yet are far slower than the registry: it comes to be asked first. When
// they are faster again, they are.
func TestRanked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, peers, place, list := farSource(t, 5*time.Millisecond, 10*time.Millisecond)
		peers.set(0, 50*time.Millisecond) // 20 blocks: a second
		ctx, batches := t.Context(), slices.Collect(slices.Chunk(list, 20))
		first := wait(ctx, t, src, batches[0])
		if first > 700*time.Millisecond {
			t.Errorf("the first took %v: the registry, which was not measured, was not asked beside peers", first)
		}
		for i, b := range batches[1:8] {
			if d := wait(ctx, t, src, b); d > 50*time.Millisecond {
				t.Errorf("batch %d took %v; of peers it would take a second", i+1, d)
			}
		}
		peers.set(0, time.Millisecond)
		time.Sleep(11 * time.Second) // they are measured again then
		for i, b := range batches[8:18] {
			wait(ctx, t, src, b)
			if r := place.Requests(); i > 0 && len(r) > 0 {
				t.Errorf("peers are fast now, and the registry was asked %v", r)
			}
		}
	})
}

// TestFarPeers has peers that take long to begin: the registry, which is near, is asked first, and peers when it brings nothing.
func TestFarPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, peers, place, list := farSource(t, 5*time.Millisecond, 10*time.Millisecond)
		peers.set(300*time.Millisecond, 0)
		ctx := t.Context()
		wait(ctx, t, src, list[:1]) // it comes with what the layer is mounted by
		wait(ctx, t, src, list[1:2])
		for _, b := range list[2:20] {
			if d := wait(ctx, t, src, []ipfs.Block{b}); d > 50*time.Millisecond {
				t.Errorf("a block took %v", d)
			}
		}
		place.fails.Store(true)
		for i, b := range list[100:110] {
			if d := wait(ctx, t, src, []ipfs.Block{b}); d > 450*time.Millisecond {
				t.Errorf("the registry refuses: peers brought block %d after %v", i, d)
			}
		}
		if n := place.asked.Load(); n > 12 {
			t.Errorf("the registry refuses, and was asked %d times for 10 blocks: first, and then beside peers", n)
		}
		place.fails.Store(false)
		time.Sleep(11 * time.Second)
		place.first = time.Minute
		if d := wait(ctx, t, src, list[200:201]); d > 1500*time.Millisecond {
			t.Errorf("the registry says nothing: peers brought it after %v", d)
		}
	})
}

// TestRankedSpare has what nobody waits for: it comes of slow peers and the registry, unless that is no faster, or peers are fast.
func TestRankedSpare(t *testing.T) {
	for name, c := range map[string]struct {
		peer, place time.Duration // a block, and a megabyte
		least, most int64         // of the registry
		time        time.Duration
	}{
		"slow peers":               {100 * time.Millisecond, 10 * time.Millisecond, 8 << 20, 20 << 20, 8 * time.Second},
		"a registry no faster":     {50 * time.Millisecond, time.Second, 1 << 20, 6 << 20, 20 * time.Second},
		"peers that are fast":      {time.Millisecond, time.Millisecond, 0, 0, time.Second},
		"peers and registry alike": {5 * time.Millisecond, 150 * time.Millisecond, 0, 6 << 20, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, peers, place, list := farSource(t, 5*time.Millisecond, c.place)
				peers.set(0, c.peer)
				ctx := ipfs.WithRank(t.Context(), ipfs.Spare)
				began, batches := time.Now(), slices.Collect(slices.Chunk(list, 70)) // of 2 MB, as a fetcher has them, a few at a time
				for group := range slices.Chunk(batches, 2) {
					var wg sync.WaitGroup
					for _, batch := range group {
						wg.Go(func() { wait(ctx, t, src, batch) })
					}
					wg.Wait()
				}
				took := time.Since(began)
				t.Logf("%v, %d bytes of the registry", took, place.bytes.Load())
				if n := place.bytes.Load(); n < c.least || n > c.most || took > c.time {
					t.Errorf("it took %v; the registry was asked for %d bytes, of which %d to %d were expected", took, n, c.least, c.most)
				}
			})
		})
	}
}

// TestRankedTogether has slow peers that get the same: they are waited for, and the registry gives each machine its part.
func TestRankedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := origintest.NewImage(t, 1, 400, 60<<10)
		place := &farPlace{Place: &origintest.Place{Name: "place", Blobs: im.Blobs}, first: 5 * time.Millisecond}
		n := &farCrowd{far: &far{Memory: ipfstest.NewMemory()}}
		put(t, n.Memory, im.Layers[0])
		n.set(0, 60*time.Millisecond)
		src := origin.NewSource(n, newFarOrigin(t, im, place))
		for batch := range slices.Chunk(im.Layers[0], 40) {
			wait(t.Context(), t, src, batch)
		}
		if got := place.bytes.Load(); got > 0 {
			t.Errorf("the registry was asked for %d bytes, though others bring all", got)
		}
	})
}

type farCrowd struct{ *far }

func (*farCrowd) Partners() (string, []string) { return "self", []string{"a", "b"} }
