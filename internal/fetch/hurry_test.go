package fetch_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/ipfs"
)

// slowLink delivers what is asked for with few other blocks, and nothing else until it is
// opened.
type slowLink struct {
	*fetchtest.Source
	began chan struct{} // gets one for each request that is held up
	open  chan struct{}
	once  sync.Once
}

func (s *slowLink) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	if len(cids) > 2 {
		s.began <- struct{}{}
		select {
		case <-s.open:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Source.Fetch(ctx, cids, fn)
}

// TestReadJoinsWhatIsSlow reads files that are under way to nobody, with much else, over a link
// that brings nothing of that in time: they come by themselves, and the rest comes later.
func TestReadJoinsWhatIsSlow(t *testing.T) {
	for name, p := range map[string]fetch.Priority{"profile": fetch.Profile, "fill": fetch.Fill} {
		t.Run(name, func(t *testing.T) {
			link := &slowLink{Source: fetchtest.New(), began: make(chan struct{}, 1000), open: make(chan struct{})}
			f, s := newFetcher(t, link, 20*time.Second)
			files := newFiles(t, link.Source, 1, 100, 5000)
			got := make(chan error)
			go func() { got <- f.Prefetch(t.Context(), slices.Values(files), p) }()
			<-link.began
			var readers sync.WaitGroup
			for _, file := range []ipfs.File{files[3], files[70]} {
				readers.Go(func() {
					p := make([]byte, file.Size)
					if n, err := f.ReadAt(t.Context(), file, p, 0); int64(n) != file.Size || err != nil {
						t.Errorf("read %d bytes: %v", n, err)
					}
				})
			}
			readers.Wait()
			link.once.Do(func() { close(link.open) })
			if err := <-got; err != nil {
				t.Error(err)
			}
			for _, file := range files {
				if !s.HasFile(file) {
					t.Fatal("a file is not here")
				}
			}
		})
	}
}

// TestProfileStopsAtTheLimit: a profile, which anybody may have made, evicts nothing. It may use
// what eviction leaves free, as fill may not.
func TestProfileStopsAtTheLimit(t *testing.T) {
	const size, limit = 100 << 10, 4 << 20
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	s.Limit(limit, nil)
	used := newFiles(t, src, 1, 5, size)
	for _, file := range used {
		readAll(t, f, file, size)
	}
	fill, profile := newFiles(t, src, 1000, 100, size), newFiles(t, src, 2000, 100, size)
	if err := f.Prefetch(t.Context(), slices.Values(fill), fetch.Fill); !errors.Is(err, fetch.ErrNoRoom) {
		t.Fatalf("filling more than the limit: %v", err)
	}
	before, _, _ := src.Totals()
	if err := f.Prefetch(t.Context(), slices.Values(profile), fetch.Profile); !errors.Is(err, fetch.ErrNoRoom) {
		t.Fatalf("a profile of more than the limit: %v", err)
	}
	if after, _, _ := src.Totals(); after == before {
		t.Error("nothing of the profile was got")
	}
	if space := s.Space(); space.EvictedObjects > 0 || space.Used > limit || space.Used < limit-3*size {
		t.Errorf("after the profile, %+v", space)
	}
	for _, file := range used {
		if !s.HasFile(file) {
			t.Error("what was read is gone")
		}
	}
}
