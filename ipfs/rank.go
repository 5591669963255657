package ipfs

import "context"

// A Rank says which requests go first: the lower, the sooner. The rank is a request's, not a
// block's, and a hint: nodes that know none ignore it.
type Rank uint8

// The ranks.
const (
	Demanded Rank = iota // somebody waits
	Ahead                // somebody is about to wait
	Planned              // somebody will probably wait
	Spare                // nobody waits
)

type rankKey struct{}

// WithRank returns a context whose requests have this rank. Without, they are Demanded.
func WithRank(ctx context.Context, r Rank) context.Context {
	return context.WithValue(ctx, rankKey{}, r)
}

// RankOf returns the rank of a request.
func RankOf(ctx context.Context) Rank {
	r, _ := ctx.Value(rankKey{}).(Rank)
	return r
}
