package embedded

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs/dht"
)

// announce tells a source what is here, and what is new soon, until ctx ends. It may take its time: others
// are told by goroutines of their own.
func (f *finder) announce(ctx context.Context, s source) {
	told := map[cid.Cid]bool{}
	var all, next time.Time // when it was told all, and when it may be told again
	retry := announceRetry
	for pause(ctx, announceCheck) == nil {
		now := time.Now()
		if now.Before(next) || len(f.host.Network().ListenAddresses()) == 0 {
			continue // nobody could come
		}
		roots := f.roots(ctx)
		if f.also != nil {
			roots = append(roots, f.also(ctx)...)
		}
		news, whole := roots, now.Sub(all) >= s.every
		if !whole {
			news = slices.DeleteFunc(slices.Clone(roots), func(c cid.Cid) bool { return told[c] })
		}
		if len(news) == 0 {
			continue
		}
		err := f.tell(ctx, s, news)
		if errors.Is(err, dht.ErrAlone) {
			continue // as soon as somebody is there
		}
		if err != nil {
			f.log.Info("others may not learn what is here", "by", string(s.name), "err", err)
			next, retry = now.Add(retry), min(2*retry, s.every)
			continue
		}
		clear(told)
		for _, c := range roots {
			told[c] = true
		}
		retry = announceRetry
		if whole {
			all = now
		}
	}
}

func (f *finder) tell(ctx context.Context, s source, roots []cid.Cid) error {
	ctx, cancel := context.WithTimeout(ctx, s.every)
	defer cancel()
	return s.Announce(ctx, roots, announceTime)
}
