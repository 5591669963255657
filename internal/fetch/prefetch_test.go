package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// newFiles returns n random files of a size, and gives them to the source.
func newFiles(t testing.TB, src *fetchtest.Source, seed, n, size int) []ipfs.File {
	t.Helper()
	files := make([]ipfs.File, n)
	for i := range files {
		var leaves []ipfs.Block
		files[i], leaves = objectstest.NewFile(t, objectstest.Random(int64(seed+i), size))
		src.Add(leaves...)
	}
	return files
}

func TestPrefetch(t *testing.T) {
	for name, p := range map[string]fetch.Priority{"profile": fetch.Profile, "fill": fetch.Fill} {
		t.Run(name, func(t *testing.T) {
			src := fetchtest.New()
			f, s := newFetcher(t, src, time.Minute)
			files := slices.Concat(newFiles(t, src, 1, 2000, 300), newFiles(t, src, 5000, 2, 20*ipfs.LeafSize+7), newFiles(t, src, 6000, 3, ipfs.LeafSize+1))
			files = append(files, files[:10]...) // again
			if err := f.Prefetch(t.Context(), slices.Values(files), p); err != nil {
				t.Fatal(err)
			}
			for _, file := range files {
				if !s.HasFile(file) {
					t.Fatalf("file %s of %d bytes is not here", file.Cid, file.Size)
				}
			}
			blocks, times, calls := src.Totals()
			if times != blocks || calls > 120 {
				t.Errorf("%d leaves were asked for %d times, in %d calls", blocks, times, calls)
			}
			if err := f.Prefetch(t.Context(), slices.Values(files), p); err != nil {
				t.Fatal(err)
			}
			if _, again, _ := src.Totals(); again != times {
				t.Errorf("what is here was asked for")
			}
			if err := f.Prefetch(t.Context(), slices.Values(files), 0); err == nil {
				t.Error("Prefetch took the priority of a reader")
			}
		})
	}
}

// TestDemandGoesBeforePrefetch: all that is fetched ahead of need is stuck, as many leaves
// as may be under way. What somebody reads comes all the same, also if it was queued.
func TestDemandGoesBeforePrefetch(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	filled, profiled := newFiles(t, src, 1, 30, ipfs.LeafSize), newFiles(t, src, 100, 12, ipfs.LeafSize)
	other, leaves := objectstest.NewFile(t, objectstest.Random(200, 1000))
	src.Add(leaves...)
	queued := filled[12] // behind what may be under way, and within what is wanted at a time
	stuck, release := make(chan struct{}, 100), make(chan struct{})
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c != other.Cid && c != queued.Cid {
			stuck <- struct{}{}
			<-release
		}
		return nil
	})
	var wg sync.WaitGroup
	for p, files := range map[fetch.Priority][]ipfs.File{fetch.Fill: filled, fetch.Profile: profiled} {
		wg.Go(func() {
			if err := f.Prefetch(t.Context(), slices.Values(files), p); err != nil {
				t.Error(err)
			}
		})
	}
	for range 5 { // four of the profile, one at least to fill
		<-stuck
	}
	for _, file := range []ipfs.File{other, queued} {
		if got := readAll(t, f, file, ipfs.LeafSize); int64(len(got)) != file.Size {
			t.Errorf("read %d bytes of %d", len(got), file.Size)
		}
	}
	close(release)
	wg.Wait()
}

// TestReaderOfFailedFill joins an attempt to fill that fails. The reader's own attempt is one
// that somebody waits for, and not behind all that is being filled.
func TestReaderOfFailedFill(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	files := newFiles(t, src, 1, 12, ipfs.LeafSize)
	read := files[0]
	asked, fail, release := make(chan struct{}), make(chan struct{}), make(chan struct{})
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		switch {
		case c != read.Cid:
			<-release
		case src.Asked(c) == 1:
			close(asked)
			<-fail
			return ipfs.ErrNotFound
		}
		return nil
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Prefetch(t.Context(), slices.Values(files), fetch.Fill); err != nil && !errors.Is(err, fetch.ErrIncomplete) {
			t.Error(err) // that one file could not be had by its attempt
		}
	})
	<-asked
	wg.Go(func() {
		defer close(release)
		if got := readAll(t, f, read, ipfs.LeafSize); len(got) != ipfs.LeafSize {
			t.Errorf("read %d bytes", len(got))
		}
	})
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for f.Stats().Misses == 0 { // it has joined
		<-tick.C
	}
	close(fail)
	wg.Wait()
}

// TestPrefetchLeavesWhatNobodyHas gets the rest, and the missing ones when they are there.
func TestPrefetchLeavesWhatNobodyHas(t *testing.T) {
	src, nowhere := fetchtest.New(), fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	here, missing := newFiles(t, src, 1, 40, 2*ipfs.LeafSize), newFiles(t, nowhere, 100, 5, 3000)
	lie := ipfs.File{Cid: here[0].Cid, Size: here[0].Size, Leaves: here[1].Leaves}
	files := slices.Concat(here[:20], missing, []ipfs.File{lie}, here[20:])
	for range 2 {
		if err := f.Prefetch(t.Context(), slices.Values(files), fetch.Profile); !errors.Is(err, fetch.ErrIncomplete) {
			t.Fatalf("with files that nobody has: %v", err)
		}
	}
	for _, file := range here {
		if !s.HasFile(file) {
			t.Errorf("file %s is not here", file.Cid)
		}
	}
	newFiles(t, src, 100, 5, 3000) // the missing ones
	if err := f.Prefetch(t.Context(), slices.Values(missing), fetch.Fill); err != nil {
		t.Error(err)
	}
}

// TestPrefetchGivesUp when nobody has anything.
func TestPrefetchGivesUp(t *testing.T) {
	f, _ := newFetcher(t, fetchtest.New(), time.Minute)
	given := 0
	err := f.Prefetch(t.Context(), func(yield func(ipfs.File) bool) {
		for i := range 5000 {
			given++
			file, _ := objectstest.NewFile(t, objectstest.Random(int64(i), 100))
			if !yield(file) {
				return
			}
		}
	}, fetch.Fill)
	if !errors.Is(err, fetch.ErrIncomplete) || given == 5000 {
		t.Errorf("%v, after %d files", err, given)
	}
	if n := f.Known(); n > 0 {
		t.Errorf("%d files that nobody has are remembered", n)
	}
}

// TestFillRate: what the limit holds back is there at once when it is read.
func TestFillRate(t *testing.T) {
	src := fetchtest.New()
	s := openStore(t, t.TempDir())
	f := fetch.New(s, src, fetch.Options{FillRate: 1})
	defer f.Close()
	files := newFiles(t, src, 1, 3, ipfs.LeafSize)
	first := make(chan struct{})
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c == files[0].Cid {
			close(first)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.Prefetch(ctx, slices.Values(files), fetch.Fill) }()
	<-first
	if got := readAll(t, f, files[1], ipfs.LeafSize); !bytes.Equal(got, objectstest.Random(2, ipfs.LeafSize)) {
		t.Error("read differs")
	}
	if err := f.Prefetch(t.Context(), slices.Values(files[2:]), fetch.Profile); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("a Prefetch that was ended: %v", err)
	}
}

// TestFillWaitsForProcessors: while others want them all, to fill is a trickle; what is read
// and what is in a profile wait for nothing.
func TestFillWaitsForProcessors(t *testing.T) {
	src := fetchtest.New()
	const asks = 3
	var asked, early atomic.Int64
	f := fetch.New(openStore(t, t.TempDir()), src, fetch.Options{Busy: func() bool {
		if asked.Add(1) == asks {
			got, _, _ := src.Totals()
			early.Store(int64(got))
		}
		return asked.Load() <= asks
	}})
	defer f.Close()
	files := newFiles(t, src, 1, 20, ipfs.LeafSize)
	if err := f.Prefetch(t.Context(), slices.Values(files[:10]), fetch.Profile); err != nil || asked.Load() > 0 {
		t.Fatalf("a profile: %v; asked %d times whether the processors are busy", err, asked.Load())
	}
	before, _, _ := src.Totals()
	if err := f.Prefetch(t.Context(), slices.Values(files[10:]), fetch.Fill); err != nil {
		t.Fatal(err)
	}
	if n := early.Load() - int64(before); asked.Load() < asks || n > asks {
		t.Errorf("%d leaves while the processors were busy, asked %d times", n, asked.Load())
	}
}

// TestPrefetchEnds with its context, also among files that are all here.
func TestPrefetchEnds(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	files := newFiles(t, src, 1, 3, 100)
	if err := f.Prefetch(t.Context(), slices.Values(files), fetch.Profile); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	given := 0
	err := f.Prefetch(ctx, func(yield func(ipfs.File) bool) {
		for range 1000 {
			if given++; given == 10 {
				cancel()
			}
			if !yield(files[given%3]) {
				return
			}
		}
	}, fetch.Fill)
	if !errors.Is(err, context.Canceled) || given > 10 {
		t.Errorf("%v, after %d files", err, given)
	}
}

func TestCloseEndsPrefetch(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	files := newFiles(t, src, 1, 100, ipfs.LeafSize)
	asked := make(chan struct{}, len(files))
	src.SetHook(func(ctx context.Context, c cid.Cid) error {
		asked <- struct{}{}
		return lost(ctx, c)
	})
	ended := make(chan error)
	go func() { ended <- f.Prefetch(t.Context(), slices.Values(files), fetch.Fill) }()
	<-asked
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, fetch.ErrClosed) {
		t.Errorf("Prefetch while closing: %v", err)
	}
}

// TestFillStopsAtTheLimit: nothing is evicted to fill, and what was evicted for a reader is
// not filled up again. What is pinned stays throughout.
func TestFillStopsAtTheLimit(t *testing.T) {
	const size, limit = 100 << 10, 4 << 20
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	pinned := newFiles(t, src, 1, 5, size)
	if err := f.Prefetch(t.Context(), slices.Values(pinned), fetch.Profile); err != nil {
		t.Fatal(err)
	}
	for _, file := range pinned {
		if err := s.Pin(t.Context(), ipfs.Pin{Root: file.Cid, Name: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	s.Limit(limit, nil)
	filled := newFiles(t, src, 100, 60, size)
	fill := func() {
		t.Helper()
		if err := f.Prefetch(t.Context(), slices.Values(filled), fetch.Fill); !errors.Is(err, fetch.ErrNoRoom) {
			t.Fatalf("filling more than the limit: %v", err)
		}
	}
	fill()
	before := s.Space()
	if before.EvictedObjects > 0 || before.Used > limit || before.Used < limit*8/10 {
		t.Errorf("after filling, %+v", before)
	}
	for _, file := range newFiles(t, src, 1000, 20, size) {
		readAll(t, f, file, size)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.Space().EvictedObjects == 0 || s.Space().Used > limit {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("nothing was evicted: %+v", s.Space())
		}
	}
	blocks, _, _ := src.Totals()
	fill()
	if again, _, _ := src.Totals(); again > blocks+1 {
		t.Errorf("%d leaves were got in place of what was evicted", again-blocks)
	}
	for _, file := range pinned {
		if !s.HasFile(file) {
			t.Errorf("a pinned file was evicted")
		}
	}
}
