package objects

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Free removes those of the objects that may be evicted, as Limit says, because who used them
// has gone, and says how many bytes it has freed. What is used meanwhile stays. In a store
// without a limit nobody writes down what was used: there it removes nothing that was ever Put,
// and all that was fetched, unless it is pinned or kept, or was stored by Cache since it was
// settled that nobody uses it, which is less than putGrace ago. After an error some of it may be gone.
func (s *Store) Free(ctx context.Context, objects []cid.Cid, since time.Time) (freed int64, err error) {
	unused := make(map[cid.Cid]time.Time, len(objects))
	for _, c := range objects {
		unused[c] = since
	}
	return s.FreeEach(ctx, unused, nil)
}

// FreeEach is Free of objects that are unused since different times. Pins that are ignored, if that is set, keep nothing.
func (s *Store) FreeEach(ctx context.Context, unused map[cid.Cid]time.Time, ignore func(ipfs.Pin) bool) (freed int64, err error) {
	if !s.waitCounted(ctx.Done()) && ctx.Err() == nil {
		return 0, nil // the store is being closed
	}
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	s.writeRecency()
	s.room.forgetPuts()
	defer s.gone()
	if ctx.Err() == nil {
		freed = s.emptyPartials(slices.Collect(maps.Keys(unused)))
	}
	for range maxPasses {
		if err := ctx.Err(); err != nil {
			return freed, fmt.Errorf("free objects: %w", err)
		}
		needed, generation, err := s.needed(ignore)
		if err != nil {
			return freed, fmt.Errorf("free objects: %w", err)
		}
		n, _, ok, err := s.remove(s.free(unused, needed), generation, ctx.Done())
		freed += n
		if err == nil && ctx.Err() != nil {
			return freed, fmt.Errorf("free objects: %w", ctx.Err())
		}
		if err != nil || ok {
			return freed, err
		}
	}
	return freed, nil
}

// free returns those of the objects that are here, and that nothing needs.
func (s *Store) free(unused map[cid.Cid]time.Time, needed map[key]bool) (list []victim) {
	for c, since := range unused {
		k, ok := keyOf(c)
		if _, is := needed[k]; is || !ok {
			continue
		}
		if info, err := os.Lstat(s.objectPath(c)); err == nil && info.Size() > 0 && s.mayFree(c, info, since) {
			list = append(list, victim{object: c, size: info.Size(), used: since})
		}
	}
	return list
}
