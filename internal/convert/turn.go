package convert

import (
	"context"

	"github.com/hinshun/ipcs/layer"
)

// A turn is had by one layer of very many entries at a time: what each entry takes is held
// until its layer is done, and the layers of an image must not need as much memory as
// all of them together.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn. The caller calls what it returns when the layer is done.
func (t turn) take(ctx context.Context) (done func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return func() {}, context.Cause(ctx)
	}
}

// takeFor waits for the turn if the tar is of a layer with very many entries.
func (t turn) takeFor(ctx context.Context, tar *layer.Tar) (done func(), err error) {
	if tar.Entries() <= layer.LargeLayer {
		return func() {}, nil
	}
	return t.take(ctx)
}
