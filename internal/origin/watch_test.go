package origin_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/origin/origintest"
)

// dripping is a place that begins to answer, and then gives nothing.
type dripping struct{ context.Context }

func (dripping) String() string { return "dripping" }

func (dripping) Range(ctx context.Context, _ digest.Digest, _, _ int64) (io.ReadCloser, error) {
	return io.NopCloser(dripping{ctx}), nil
}

func (d dripping) Read([]byte) (int, error) {
	<-d.Done()
	return 0, d.Err()
}

// TestDripping has the first place answer for ever: it is given up, and the next is asked.
func TestDripping(t *testing.T) {
	im := origintest.NewImage(t, 1, 60, 40<<10)
	synctest.Test(t, func(t *testing.T) {
		good := &origintest.Place{Name: "good", Blobs: im.Blobs}
		o, err := origin.New(origin.Options{Always: []origin.Place{dripping{}, good}})
		if err != nil {
			t.Fatal(err)
		}
		o.Located(im.Record)
		if _, err := o.Get(t.Context(), im.Record); err != nil {
			t.Error(err)
		}
		o.Recorded(im.Record, im.Image)
		fetchAll(t, o, im.Layers[0])
	})
}
