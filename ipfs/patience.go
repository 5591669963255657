package ipfs

import (
	"context"

	"github.com/ipfs/go-cid"
)

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

type lackKey struct{}

// WithLack returns a context whose requests tell of blocks that all peers which are connected have said that they have not got; they are
// waited for all the same. lack must be quick, and ask for nothing. It may be told of a block several times, or, by nodes that do not
// know, never.
func WithLack(ctx context.Context, lack func(cid.Cid)) context.Context {
	return context.WithValue(ctx, lackKey{}, lack)
}

// LackOf returns what a request tells of blocks that peers have not got; nil for nothing.
func LackOf(ctx context.Context) func(cid.Cid) {
	lack, _ := ctx.Value(lackKey{}).(func(cid.Cid))
	return lack
}
