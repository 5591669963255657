package ipfstest

import (
	"context"
	"errors"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

func testFetchMissing(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 40, 300)
	var here []ipfs.Block
	for i, b := range blocks {
		if i%4 != 1 {
			here = append(here, b)
		}
	}
	put(t, n, here...)
	got, err := collect(t.Context(), t, n, Cids(blocks))
	if !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("Fetch with missing blocks: %v, want ErrNotFound", err)
	}
	for _, b := range here {
		if !got[b.Cid] {
			t.Errorf("%s was not delivered because others are missing", b.Cid)
		}
	}
	if len(got) != len(here) {
		t.Errorf("%d blocks delivered, want %d", len(got), len(here))
	}
}

func testFetchCallbackError(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 50, 300)
	put(t, n, blocks...)
	stop := errors.New("stop")
	calls := 0
	err := n.Fetch(t.Context(), Cids(blocks), func(ipfs.Block) error {
		if calls++; calls == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || calls != 3 {
		t.Fatalf("Fetch = %v after %d calls of fn, want fn's error after 3", err, calls)
	}
}

func testFetchWithinFetch(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 30, 300)
	put(t, n, blocks...)
	inner := 0
	err := n.Fetch(t.Context(), Cids(blocks[:15]), func(b ipfs.Block) error {
		if _, err := n.Get(t.Context(), b.Cid); err != nil {
			return err
		}
		return n.Fetch(t.Context(), Cids(blocks[15:]), func(ipfs.Block) error { inner++; return nil })
	})
	if err != nil || inner != 15*15 {
		t.Fatalf("Fetch within Fetch: %v, %d blocks, want %d", err, inner, 15*15)
	}
}

func wantPins(t *testing.T, n ipfs.Node, name string, want ...ipfs.Pin) {
	t.Helper()
	got, err := n.Pins(t.Context(), name)
	if err != nil {
		t.Fatalf("Pins(%q): %v", name, err)
	}
	if len(got) != len(want) {
		t.Fatalf("Pins(%q) = %v, want %v", name, got, want)
	}
	for _, p := range want {
		if !slices.Contains(got, p) {
			t.Fatalf("Pins(%q) = %v, want %v in it", name, got, p)
		}
	}
}

func change(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testPins(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 3, 100)
	put(t, n, blocks...)
	a := ipfs.Pin{Root: blocks[0].Cid, Name: "image/a b&c=d"}
	b := ipfs.Pin{Root: blocks[1].Cid, Name: "image"}
	c := ipfs.Pin{Root: blocks[2].Cid}
	wantPins(t, n, "")
	for _, p := range []ipfs.Pin{a, b, c, a} {
		change(t, n.Pin(t.Context(), p))
	}
	wantPins(t, n, "", a, b, c)
	wantPins(t, n, "image", b) // exactly, not as a prefix
	wantPins(t, n, a.Name, a)
	wantPins(t, n, "other")
	change(t, n.Unpin(t.Context(), b))
	change(t, n.Unpin(t.Context(), b)) // no error
	change(t, n.Unpin(t.Context(), ipfs.Pin{Root: a.Root, Name: "other"}))
	wantPins(t, n, "", a, c)
	wantBlock(t, n, blocks[0])
}

func testPinNames(t *testing.T, n ipfs.Node) {
	b := Blocks(t, 1, 100)[0]
	put(t, n, b)
	one, two := ipfs.Pin{Root: b.Cid, Name: "one"}, ipfs.Pin{Root: b.Cid, Name: "two"}
	change(t, n.Pin(t.Context(), one))
	change(t, n.Pin(t.Context(), two))
	wantPins(t, n, "", one, two)
	change(t, n.Unpin(t.Context(), one))
	wantPins(t, n, "", two)
	wantPins(t, n, "one")
}

// testOneName is testPinNames of a node that has one name for a root: it stays pinned as long
// as the last name is not removed.
func testOneName(t *testing.T, n ipfs.Node) {
	b := Blocks(t, 1, 100)[0]
	put(t, n, b)
	one, two := ipfs.Pin{Root: b.Cid, Name: "one"}, ipfs.Pin{Root: b.Cid, Name: "two"}
	change(t, n.Pin(t.Context(), one))
	change(t, n.Pin(t.Context(), two))
	wantPins(t, n, "", two)
	change(t, n.Unpin(t.Context(), one))
	wantPins(t, n, "", two)
	change(t, n.Unpin(t.Context(), two))
	wantPins(t, n, "")
}

func testCancelled(t *testing.T, n ipfs.Node) {
	b := Blocks(t, 2, 100)
	put(t, n, b[0])
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := n.Get(ctx, b[1].Cid); !errors.Is(err, context.Canceled) && !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("Get with a cancelled context: %v", err)
	}
	if _, err := collect(ctx, t, n, Cids(b)); !errors.Is(err, context.Canceled) && !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("Fetch with a cancelled context: %v", err)
	}
	wantBlock(t, n, b[0]) // the node is none the worse for it
}

func testConcurrency(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 64, 2000)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range blocks {
				b := blocks[(i*8+j)%len(blocks)]
				if err := n.Put(t.Context(), b); err != nil {
					t.Error(err)
				}
				if _, err := n.Get(t.Context(), b.Cid); err != nil {
					t.Error(err)
				}
			}
			if _, err := collect(t.Context(), t, n, Cids(blocks[:8])); err != nil && !errors.Is(err, ipfs.ErrNotFound) {
				t.Error(err)
			}
			if err := n.Pin(t.Context(), ipfs.Pin{Root: blocks[i].Cid, Name: "concurrent"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := collect(t.Context(), t, n, Cids(blocks)); err != nil || len(got) != len(blocks) {
		t.Errorf("Fetch delivered %d of %d: %v", len(got), len(blocks), err)
	}
	if pins, err := n.Pins(t.Context(), "concurrent"); err != nil || len(pins) != 8 {
		t.Errorf("%d pins, %v; want 8", len(pins), err)
	}
}

// testGoroutines uses a node and looks for goroutines it leaves after Close. The
// first use does not count: libraries start some once and for all.
func testGoroutines(t *testing.T, open func(t *testing.T) ipfs.Node) {
	use := func(t *testing.T) {
		n := open(t)
		testFetch(t, n)
		change(t, n.Close())
	}
	t.Run("First", use)
	before := runtime.NumGoroutine()
	t.Run("Second", use)
	deadline := time.Now().Add(20 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond) // connections of others close when they do
	}
	if after := runtime.NumGoroutine(); after > before {
		var stacks strings.Builder
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		t.Errorf("%d goroutines before, %d after:\n%s", before, after, stacks.String())
	}
}
