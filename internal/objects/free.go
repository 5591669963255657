package objects

import (
	"context"
	"fmt"
	"os"

	"github.com/ipfs/go-cid"
)

// Free removes those of the objects that may be evicted, as Limit says, because who used them
// has gone, and says how many bytes it has freed. What is used meanwhile stays. In a store
// without a limit nobody writes down what was Put lately or used: there it removes nothing that
// was ever Put, and all that was fetched, unless it is pinned or kept.
func (s *Store) Free(ctx context.Context, objects []cid.Cid) (freed int64, err error) {
	if !s.waitCounted(ctx.Done()) && ctx.Err() == nil {
		return 0, nil // the store is being closed
	}
	s.room.batch.Lock()
	defer s.room.batch.Unlock()
	s.writeRecency()
	defer s.gone()
	if ctx.Err() == nil {
		freed = s.emptyPartials(objects)
	}
	for range maxPasses {
		if err := ctx.Err(); err != nil {
			return freed, fmt.Errorf("free objects: %w", err)
		}
		needed, generation, err := s.needed()
		if err != nil {
			return freed, fmt.Errorf("free objects: %w", err)
		}
		n, _, ok, err := s.remove(s.free(objects, needed), generation)
		freed += n
		if err != nil || ok {
			return freed, err
		}
	}
	return freed, nil
}

// free returns those of the objects that are here, and that nothing needs.
func (s *Store) free(objects []cid.Cid, needed map[key]bool) (list []victim) {
	for _, c := range objects {
		k, ok := keyOf(c)
		if _, is := needed[k]; is || !ok {
			continue
		}
		if info, err := os.Lstat(s.objectPath(c)); err == nil && info.Size() > 0 && s.mayFree(c, info) {
			list = append(list, victim{object: c, size: info.Size()})
		}
	}
	return list
}
