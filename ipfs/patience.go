package ipfs

import "context"

type hastyKey struct{}

// WithoutPatience returns a context whose requests fail as soon as all peers that are connected have said that they have
// not got a block, in place of waiting for others: for who can have it elsewhere. It is a hint.
func WithoutPatience(ctx context.Context) context.Context {
	return context.WithValue(ctx, hastyKey{}, true)
}

// HastyOf says whether a request is one without patience.
func HastyOf(ctx context.Context) bool {
	hasty, _ := ctx.Value(hastyKey{}).(bool)
	return hasty
}
