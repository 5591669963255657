package fetch_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/ipfs"
)

// partsOf are leaves of a file.
func partsOf(f ipfs.File, leaves ...int) (parts []fetch.Part) {
	for _, i := range leaves {
		parts = append(parts, fetch.Part{File: f, Leaf: i})
	}
	return parts
}

// readLeaf reads the beginning of a leaf.
func readLeaf(t *testing.T, f *fetch.Fetcher, file ipfs.File, leaf int) {
	t.Helper()
	if _, err := f.ReadAt(t.Context(), file, make([]byte, 5), int64(leaf)*ipfs.LeafSize); err != nil && err != io.EOF {
		t.Fatal(err)
	}
}

// askedFor returns which leaves of a file a source was asked for.
func askedFor(src *fetchtest.Source, f ipfs.File) (leaves []int) {
	for i := range f.NumLeaves() {
		if src.Asked(f.Leaf(i)) > 0 {
			leaves = append(leaves, i)
		}
	}
	return leaves
}

// TestPrefetchParts gets leaves of a file and no others, also when they are read; behind what was
// not named the window opens as always.
func TestPrefetchParts(t *testing.T) {
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	large := newFiles(t, src, 1, 1, 40*ipfs.LeafSize+7)[0]
	small := newFiles(t, src, 2, 1, 300)[0]
	prefetch := func(parts ...fetch.Part) {
		t.Helper()
		if err := f.PrefetchParts(t.Context(), slices.Values(parts), fetch.Profile); err != nil {
			t.Fatal(err)
		}
	}
	want := []int{0, 1, 2, 3, 4, 5, 40}
	prefetch(append(partsOf(large, 3, 4, 5, 40, 4, 0, 1, 2), fetch.Part{File: small, Leaf: fetch.AllLeaves})...)
	if !s.HasFile(small) || s.HasFile(large) {
		t.Error("not those files are here that should be")
	}
	for _, leaf := range want {
		readLeaf(t, f, large, leaf)
	}
	time.Sleep(50 * time.Millisecond) // what would be read ahead is asked for behind the read
	if asked := askedFor(src, large); !slices.Equal(asked, want) {
		t.Errorf("leaves %v were asked for", asked)
	}
	if read, known := f.LeavesRead(large); !known || !slices.Equal(read, want) {
		t.Errorf("leaves %v were read, %v", read, known)
	}
	// Not named: a reader that goes on finds each leaf asked for before it is there.
	for leaf := 6; leaf < 39; leaf++ {
		readLeaf(t, f, large, leaf)
		for deadline := time.Now().Add(time.Minute); src.Asked(large.Leaf(leaf+1)) == 0; {
			if time.Now().After(deadline) {
				t.Fatalf("leaf %d was read, and the next was not asked for", leaf)
			}
			time.Sleep(time.Millisecond)
		}
	}
	prefetch(partsOf(large, 39)...)
	if !s.HasFile(large) {
		t.Error("all leaves are here, and the file is not")
	}
	if _, known := f.LeavesRead(large); known {
		t.Error("it is known what was read of a file that is here")
	}
	for _, leaf := range []int{-2, 41} {
		other := newFiles(t, src, 3, 1, 40*ipfs.LeafSize+8)[0]
		if err := f.PrefetchParts(t.Context(), slices.Values(partsOf(other, leaf)), fetch.Profile); err == nil {
			t.Errorf("there is a leaf %d", leaf)
		}
	}
}

// TestPartsBeforeTheirTurn reads a leaf that is named and not asked for yet.
func TestPartsBeforeTheirTurn(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	large := newFiles(t, src, 1, 1, 60*ipfs.LeafSize)[0]
	stuck := make(chan struct{})
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c != large.Leaf(50) {
			<-stuck
		}
		return nil
	})
	var leaves []int
	for i := range 30 {
		leaves = append(leaves, i)
	}
	done := make(chan error, 1)
	go func() {
		done <- f.PrefetchParts(t.Context(), slices.Values(partsOf(large, append(leaves, 50)...)), fetch.Profile)
	}()
	for len(askedFor(src, large)) == 0 {
		time.Sleep(time.Millisecond)
	}
	readLeaf(t, f, large, 50)
	time.Sleep(50 * time.Millisecond)
	close(stuck)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if asked := askedFor(src, large); !slices.Equal(asked, append(leaves, 50)) {
		t.Errorf("leaves %v were asked for", asked)
	}
}

// TestPartsThatFail finds that a file whose leaves nobody has counts once: what else is named
// comes.
func TestPartsThatFail(t *testing.T) {
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	large := newFiles(t, src, 1, 1, 100*ipfs.LeafSize)[0]
	small := newFiles(t, src, 2, 1, 300)[0]
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c != small.Cid {
			return ipfs.ErrNotFound
		}
		return nil
	})
	var leaves []int
	for i := range large.NumLeaves() {
		leaves = append(leaves, i)
	}
	parts := append(partsOf(large, leaves...), fetch.Part{File: small, Leaf: fetch.AllLeaves})
	if err := f.PrefetchParts(t.Context(), slices.Values(parts), fetch.Profile); !errors.Is(err, fetch.ErrIncomplete) {
		t.Errorf("the error is %v", err)
	}
	if !s.HasFile(small) {
		t.Error("the file behind is not here")
	}
	if n := f.Named(); n > 0 {
		t.Errorf("leaves of %d files are remembered, of which nothing came", n)
	}
	if _, known := f.LeavesRead(ipfs.File{Cid: cid.Undef}); known {
		t.Error("it is known what was read of no file")
	}
}

// TestPartsAndTheLimit finds that leaves that are here need no room, and that what lies in parts of
// files counts besides what is to come.
func TestPartsAndTheLimit(t *testing.T) {
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	large := newFiles(t, src, 1, 1, 40*ipfs.LeafSize)[0]
	other := newFiles(t, src, 2, 1, 6*ipfs.LeafSize)[0]
	parts := partsOf(large, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	const limit = 10*ipfs.LeafSize + ipfs.LeafSize/2
	if err := f.PrefetchParts(t.Context(), slices.Values(parts), fetch.Profile); err != nil {
		t.Fatal(err)
	}
	s.Limit(limit, func() []cid.Cid { return nil })
	if err := f.PrefetchParts(t.Context(), slices.Values(parts), fetch.Profile); err != nil {
		t.Errorf("leaves that are here: %v", err)
	}
	if err := f.Prefetch(t.Context(), slices.Values([]ipfs.File{other}), fetch.Profile); !errors.Is(err, fetch.ErrNoRoom) {
		t.Errorf("16 leaves in ten and a half: %v", err)
	}
	if space := s.Space(); space.Used > limit || space.EvictedObjects > 0 {
		t.Errorf("%+v", space)
	}
}

// TestLeavesForPeers finds leaves of a file that is incomplete, which are told of as they come, and
// none of others.
func TestLeavesForPeers(t *testing.T) {
	src := fetchtest.New()
	var mu sync.Mutex
	told := map[cid.Cid]bool{}
	f, s := newFetcherWith(t, src, fetch.Options{Timeout: time.Minute, Arrived: func(leaves []cid.Cid) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range leaves {
			told[c] = true
		}
	}})
	large := newFiles(t, src, 1, 1, 12*ipfs.LeafSize+7)[0]
	small := newFiles(t, src, 2, 1, 300)[0]
	parts := append(partsOf(large, 3, 12), fetch.Part{File: small, Leaf: fetch.AllLeaves})
	if err := f.PrefetchParts(t.Context(), slices.Values(parts), fetch.Profile); err != nil {
		t.Fatal(err)
	}
	for i := range large.NumLeaves() {
		c := large.Leaf(i)
		data, err := f.Leaf(c)
		is := i == 3 || i == 12
		if f.HasLeaf(c) != is || is && (err != nil || len(data) != large.LeafLen(i)) || !is && !errors.Is(err, ipfs.ErrNotFound) {
			t.Errorf("leaf %d: %d bytes, %v", i, len(data), err)
		}
		mu.Lock()
		if told[c] != is {
			t.Errorf("leaf %d was told of: %v", i, told[c])
		}
		mu.Unlock()
	}
	mu.Lock()
	if !told[small.Cid] || len(told) != 3 {
		t.Errorf("%d leaves were told of", len(told))
	}
	mu.Unlock()
	if f.HasLeaf(small.Cid) {
		t.Error("a file that is here is none that is incomplete")
	}
	if err := f.Prefetch(t.Context(), slices.Values([]ipfs.File{large}), fetch.Whole); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Leaf(large.Leaf(3)); !errors.Is(err, ipfs.ErrNotFound) || !s.HasFile(large) {
		t.Errorf("of a file that is here: %v", err)
	}
}
