package fetch_test

import (
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestPrefetchParts gets leaves of a file and no others, also when they are read; what was not
// named is read with some ahead, as always.
func TestPrefetchParts(t *testing.T) {
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	large := newFiles(t, src, 1, 1, 40*ipfs.LeafSize+7)[0]
	small := newFiles(t, src, 2, 1, 300)[0]
	parts := []fetch.Part{{File: large, Leaf: 3}, {File: small, Leaf: fetch.AllLeaves}, {File: large, Leaf: 4}, {File: large, Leaf: 5}, {File: large, Leaf: 40}, {File: large, Leaf: 4}}
	prefetch := func(parts ...fetch.Part) {
		t.Helper()
		if err := f.PrefetchParts(t.Context(), slices.Values(parts), fetch.Profile); err != nil {
			t.Fatal(err)
		}
	}
	read := func(leaf int) {
		t.Helper()
		if _, err := f.ReadAt(t.Context(), large, make([]byte, 5), int64(leaf)*ipfs.LeafSize); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	prefetch(parts...)
	if !s.HasFile(small) || s.HasFile(large) {
		t.Error("not those files are here that should be")
	}
	want := []int{3, 4, 5, 40}
	if here := f.Here(large); !slices.Equal(here, want) {
		t.Errorf("leaves %v are here", here)
	}
	for _, leaf := range want {
		read(leaf)
	}
	blocks, _, _ := src.Totals()
	if blocks != 5 {
		t.Errorf("%d leaves were fetched, want 5", blocks)
	}
	read(6) // behind three that are here
	for deadline := time.Now().Add(time.Minute); !slices.Equal(f.Here(large), []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 40}); {
		if time.Now().After(deadline) {
			t.Fatalf("leaves %v are here", f.Here(large))
		}
		time.Sleep(time.Millisecond)
	}
	var rest []fetch.Part
	for leaf := range large.NumLeaves() {
		rest = append(rest, fetch.Part{File: large, Leaf: leaf})
	}
	prefetch(rest...)
	if !s.HasFile(large) {
		t.Error("all leaves are here, and the file is not")
	}
	for _, leaf := range []int{-2, 41} {
		other := newFiles(t, src, 3, 1, 40*ipfs.LeafSize+8)[0]
		if err := f.PrefetchParts(t.Context(), slices.Values([]fetch.Part{{File: other, Leaf: leaf}}), fetch.Profile); err == nil {
			t.Errorf("there is a leaf %d", leaf)
		}
	}
}

// TestPrefetchPartsThatFail finds that a leaf that nobody has is no error of others.
func TestPrefetchPartsThatFail(t *testing.T) {
	src := fetchtest.New()
	f, _ := newFetcher(t, src, time.Minute)
	large := newFiles(t, src, 1, 1, 20*ipfs.LeafSize)[0]
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c == large.Leaf(2) {
			return ipfs.ErrNotFound
		}
		return nil
	})
	err := f.PrefetchParts(t.Context(), slices.Values([]fetch.Part{{File: large, Leaf: 2}, {File: large, Leaf: 7}}), fetch.Profile)
	if err == nil {
		t.Error("no error")
	}
	if here := f.Here(large); !slices.Equal(here, []int{7}) {
		t.Errorf("leaves %v are here", here)
	}
	if left := f.Here(ipfs.File{Cid: cid.Undef}); left != nil {
		t.Errorf("of no file %v are here", left)
	}
}
