package origin_test

import (
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
	"github.com/hinshun/ipcs/ipfs"
)

// readOneByOne waits for blocks of one part of a layer, in no order, and says for how many of them it had to wait for the place.
func readOneByOne(t *testing.T, o *origin.Origin, part []ipfs.Block) (waited int) {
	t.Helper()
	for _, i := range rand.New(rand.NewPCG(1, 1)).Perm(len(part)) {
		began := time.Now()
		fetchAll(t, o, part[i:i+1])
		if time.Since(began) > 50*time.Millisecond {
			waited++
		}
	}
	return waited
}

// TestAround reads a part of a layer, block by block, from a place that is far away: most of it comes beside what was waited for. From one that is near, nothing does.
func TestAround(t *testing.T) {
	for _, c := range []struct {
		first       time.Duration
		least, most int // that were waited for
	}{
		{100 * time.Millisecond, 4, 17},
		{5 * time.Millisecond, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			im := origintest.NewImage(t, 1, 800, 60<<10)
			place := &farPlace{Place: &origintest.Place{Name: "place", Blobs: im.Blobs}, first: c.first, each: 8 * time.Millisecond}
			o := newFarOrigin(t, im, place)
			part := im.Layers[0][200:600]
			if waited := readOneByOne(t, o, part); waited < c.least || waited > c.most {
				t.Errorf("first byte after %v: %d of %d blocks were waited for, want %d to %d", c.first, waited, len(part), c.least, c.most)
			}
			t.Logf("first byte after %v: %d bytes", c.first, place.bytes.Load())
		})
	}
}

// TestAroundIsBounded reads here and there, each time near what was read before, and never what came around it: that ends.
func TestAroundIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := origintest.NewImage(t, 1, 2000, 60<<10)
		place := &farPlace{Place: &origintest.Place{Name: "place", Blobs: im.Blobs}, first: 100 * time.Millisecond, each: 8 * time.Millisecond}
		o := newFarOrigin(t, im, place)
		var wanted int64
		for i := 0; i < 2000; i += 40 {
			fetchAll(t, o, im.Layers[0][1+i:2+i])
			wanted += 600 << 10 // its frame
		}
		time.Sleep(time.Minute)
		if extra := place.bytes.Load() - wanted; extra > 16<<20 {
			t.Errorf("%d bytes came that nobody wanted", extra)
		}
	})
}

// TestAroundFails has a place that fails for what lies around: who waits for some of it reads it himself.
func TestAroundFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := origintest.NewImage(t, 1, 400, 60<<10)
		inner := &origintest.Place{Name: "place", Blobs: im.Blobs}
		place := &farPlace{Place: inner, first: 100 * time.Millisecond, each: 8 * time.Millisecond}
		o := newFarOrigin(t, im, place)
		inner.Change(func(r origintest.Request, answer []byte) ([]byte, error) {
			if r.N > 700<<10 && r.N < 4<<20 {
				return answer[:100_000], nil
			}
			return answer, nil
		})
		readOneByOne(t, o, im.Layers[0][1:])
	})
}

// hanging never answers requests for what lies around.
type hanging struct{ *farPlace }

func (p hanging) Range(ctx context.Context, d digest.Digest, off, n int64) (io.ReadCloser, error) {
	if n > 700<<10 && n < 4<<20 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return p.farPlace.Range(ctx, d, off, n)
}

// TestAroundHangs has a place that hangs for what lies around: who waits for some of it does so for a second.
func TestAroundHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := origintest.NewImage(t, 1, 400, 60<<10)
		place := hanging{&farPlace{Place: &origintest.Place{Name: "place", Blobs: im.Blobs}, first: 100 * time.Millisecond, each: 8 * time.Millisecond}}
		o, err := origin.New(origin.Options{Repository: func(string, bool) (origin.Place, error) { return place, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		o.Located(im.Record, "place")
		o.Recorded(im.Record, im.Image)
		for _, b := range im.Layers[0][1:] {
			began := time.Now()
			fetchAll(t, o, []ipfs.Block{b})
			if took := time.Since(began); took > 2*time.Second {
				t.Fatalf("a block took %v", took)
			}
		}
	})
}
