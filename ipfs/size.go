package ipfs

import "context"

type sizeKey struct{}

// WithBlockSize returns a context whose requests are for blocks of so many bytes on average. It is
// a hint, which says how many may be asked for at a time: nodes that do without ignore it.
func WithBlockSize(ctx context.Context, bytes int64) context.Context {
	return context.WithValue(ctx, sizeKey{}, bytes)
}

// BlockSizeOf returns it, and 0 where nobody knows.
func BlockSizeOf(ctx context.Context) int64 {
	n, _ := ctx.Value(sizeKey{}).(int64)
	return n
}
