package fetch_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

func newCounting(t testing.TB, src fetch.Source, opens bool) *fetch.Fetcher {
	t.Helper()
	f := fetch.New(openStore(t, t.TempDir()), src, fetch.Options{Timeout: time.Minute, Opens: opens})
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// TestCountsPrefetched prefetches files of which some are opened later, and one that
// somebody has begun to read.
func TestCountsPrefetched(t *testing.T) {
	for _, opens := range []bool{true, false} {
		t.Run(fmt.Sprint("opens=", opens), func(t *testing.T) {
			src := fetchtest.New()
			f := newCounting(t, src, opens)
			files := slices.Concat(newFiles(t, src, 1, 5, 300), newFiles(t, src, 100, 1, 20*ipfs.LeafSize))
			if _, err := f.ReadAt(t.Context(), files[5], make([]byte, 10), 0); err != nil {
				t.Fatal(err)
			}
			for p, some := range map[fetch.Priority][]ipfs.File{fetch.Profile: files[:2], fetch.Fill: files[2:]} {
				if err := f.Prefetch(t.Context(), slices.Values(some), p); err != nil {
					t.Fatal(err)
				}
			}
			for _, opened := range []int{0, 0, 2, 3, 5} {
				f.Opened(files[opened].Cid)
			}
			profile := fetch.Prefetched{Files: 2, Bytes: 600, OpenedFiles: 1, OpenedBytes: 300}
			fill := fetch.Prefetched{Files: 3, Bytes: 900, OpenedFiles: 2, OpenedBytes: 600}
			if !opens {
				profile, fill = fetch.Prefetched{}, fetch.Prefetched{}
			}
			if got := f.Stats(); got.Profile != profile || got.Fill != fill {
				t.Errorf("profile %+v, fill %+v", got.Profile, got.Fill)
			}
		})
	}
}

// TestCountsWaits: each read that waited is in one class of waits, and no other is.
func TestCountsWaits(t *testing.T) {
	src := fetchtest.New()
	f := newCounting(t, src, false)
	for _, file := range newFiles(t, src, 1, 3, 300) {
		for range 2 { // the second read is answered from disk
			if _, err := f.ReadAt(t.Context(), file, make([]byte, 300), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := f.Stats()
	n := int64(0)
	for _, count := range s.Waits.Counts {
		n += count
	}
	if n != 3 || s.Misses != 3 || s.Hits != 3 || s.Waits.Sum <= 0 {
		t.Errorf("%+v", s)
	}
	if bounds := s.Waits.Bounds(); len(bounds) != len(s.Waits.Counts)-1 || !slices.IsSorted(bounds) {
		t.Errorf("bounds %v", bounds)
	}
}

// BenchmarkOpened is what counting adds to each read through FUSE, of a file that was not
// prefetched where others were.
func BenchmarkOpened(b *testing.B) {
	src := fetchtest.New()
	f := newCounting(b, src, true)
	if err := f.Prefetch(b.Context(), slices.Values(newFiles(b, src, 10, 5000, 300)), fetch.Profile); err != nil {
		b.Fatal(err)
	}
	file, _ := objectstest.NewFile(b, objectstest.Random(1, 300))
	for b.Loop() {
		f.Opened(file.Cid)
	}
}
