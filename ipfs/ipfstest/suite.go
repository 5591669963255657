package ipfstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

// A Trait is what an implementation of others does in its own way.
type Trait string

// OneName says that a root has one pin: a further Pin gives it another name.
const OneName Trait = "one name a pin"

// Suite runs the conformance tests. open returns a fresh, empty node for each test,
// that gives up soon on blocks nobody has; it may leave closing to Suite, or close
// it again in a cleanup. What a node with a trait does is tested in place of what others do.
func Suite(t *testing.T, open func(t *testing.T) ipfs.Node, traits ...Trait) {
	t.Helper()
	pinNames := testPinNames
	if slices.Contains(traits, OneName) {
		pinNames = testOneName
	}
	tests := []struct {
		name string
		run  func(t *testing.T, n ipfs.Node)
	}{
		{"PutGet", testPutGet},
		{"PutAgain", testPutAgain},
		{"EmptyBlock", testEmptyBlock},
		{"LargestBlock", testLargestBlock},
		{"RefuseWrongBytes", testRefuseWrongBytes},
		{"RefuseTooLarge", testRefuseTooLarge},
		{"RefuseOtherHashes", testRefuseOtherHashes},
		{"GetMissing", testGetMissing},
		{"Fetch", testFetch},
		{"FetchMissing", testFetchMissing},
		{"FetchCallbackError", testFetchCallbackError},
		{"FetchWithinFetch", testFetchWithinFetch},
		{"Pins", testPins},
		{"PinNames", pinNames},
		{"Cancelled", testCancelled},
		{"Concurrency", testConcurrency},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := open(t)
			test.run(t, n)
			if err := n.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	t.Run("NoGoroutineLeft", func(t *testing.T) { testGoroutines(t, open) })
}

// Blocks returns n different raw blocks of size bytes (at least 8). Those of two tests
// differ if there is room for the test's name.
func Blocks(t testing.TB, n, size int) []ipfs.Block {
	t.Helper()
	blocks := make([]ipfs.Block, n)
	for i := range blocks {
		data := bytes.Repeat([]byte{byte(i)}, size)
		copy(data, fmt.Sprintf("%08d %s ", i, t.Name()))
		b, err := ipfs.NewBlock(cid.Raw, data)
		if err != nil {
			t.Fatal(err)
		}
		blocks[i] = b
	}
	return blocks
}

// Cids returns the CIDs of blocks.
func Cids(blocks []ipfs.Block) []cid.Cid {
	cids := make([]cid.Cid, len(blocks))
	for i, b := range blocks {
		cids[i] = b.Cid
	}
	return cids
}

func put(t *testing.T, n ipfs.Node, blocks ...ipfs.Block) {
	t.Helper()
	if err := n.Put(t.Context(), blocks...); err != nil {
		t.Fatalf("Put: %v", err)
	}
}

func wantBlock(t *testing.T, n ipfs.Node, b ipfs.Block) {
	t.Helper()
	got, err := n.Get(t.Context(), b.Cid)
	if err != nil {
		t.Fatalf("Get(%s): %v", b.Cid, err)
	}
	if !bytes.Equal(got, b.Data) {
		t.Fatalf("Get(%s) = %d bytes, want %d, or they differ", b.Cid, len(got), len(b.Data))
	}
}

func wantHas(t *testing.T, n ipfs.Node, c cid.Cid, want bool) {
	t.Helper()
	got, err := n.Has(t.Context(), c)
	if err != nil || got != want {
		t.Fatalf("Has(%s) = %v, %v; want %v", c, got, err, want)
	}
}

func testPutGet(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 20, 1000)
	wantHas(t, n, blocks[0].Cid, false)
	put(t, n, blocks...)
	for _, b := range blocks {
		wantHas(t, n, b.Cid, true)
		wantBlock(t, n, b)
	}
}

func testPutAgain(t *testing.T, n ipfs.Node) {
	b := Blocks(t, 1, 100)[0]
	put(t, n, b)
	put(t, n, b, b)
	put(t, n)
	wantBlock(t, n, b)
}

func testEmptyBlock(t *testing.T, n ipfs.Node) {
	b, err := ipfs.NewBlock(cid.Raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	put(t, n, b)
	wantBlock(t, n, b)
}

func testLargestBlock(t *testing.T, n ipfs.Node) {
	b := Blocks(t, 1, ipfs.MaxBlock)[0]
	put(t, n, b)
	wantBlock(t, n, b)
}

func testRefuseWrongBytes(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 2, 100)
	wrong := ipfs.Block{Cid: blocks[0].Cid, Data: blocks[1].Data}
	if err := n.Put(t.Context(), wrong); !errors.Is(err, ipfs.ErrHash) {
		t.Fatalf("Put of wrong bytes: %v, want ErrHash", err)
	}
	wantHas(t, n, blocks[0].Cid, false)
}

func testRefuseTooLarge(t *testing.T, n ipfs.Node) {
	data := make([]byte, ipfs.MaxBlock+1)
	hash, err := mh.Sum(data, mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	err = n.Put(t.Context(), ipfs.Block{Cid: cid.NewCidV1(cid.Raw, hash), Data: data})
	if !errors.Is(err, ipfs.ErrTooLarge) {
		t.Fatalf("Put of %d bytes: %v, want ErrTooLarge", len(data), err)
	}
}

func testRefuseOtherHashes(t *testing.T, n ipfs.Node) {
	data := []byte("anything at all")
	for _, code := range []uint64{mh.IDENTITY, mh.SHA2_512, mh.SHA1} {
		hash, err := mh.Sum(data, code, -1)
		if err != nil {
			t.Fatal(err)
		}
		c := cid.NewCidV1(cid.Raw, hash)
		if err := n.Put(t.Context(), ipfs.Block{Cid: c, Data: data}); !errors.Is(err, ipfs.ErrHash) {
			t.Errorf("Put under hash %#x: %v, want ErrHash", code, err)
		}
		if got, err := n.Get(t.Context(), c); err == nil {
			t.Errorf("Get under hash %#x gave %q", code, got)
		}
	}
}

func testGetMissing(t *testing.T, n ipfs.Node) {
	b := Blocks(t, 1, 100)[0]
	_, err := n.Get(t.Context(), b.Cid)
	if !errors.Is(err, ipfs.ErrNotFound) {
		t.Fatalf("Get of a block nobody has: %v, want ErrNotFound", err)
	}
	put(t, n, b)
	wantBlock(t, n, b)
}

// collect fetches, and checks each block and that none comes twice or at the same
// time as another.
func collect(ctx context.Context, t *testing.T, n ipfs.Node, cids []cid.Cid) (map[cid.Cid]bool, error) {
	t.Helper()
	got := map[cid.Cid]bool{}
	var inside sync.Mutex
	err := n.Fetch(ctx, cids, func(b ipfs.Block) error {
		if !inside.TryLock() {
			t.Error("Fetch calls fn from two goroutines at a time")
			inside.Lock()
		}
		defer inside.Unlock()
		if err := ipfs.Verify(b.Cid, b.Data); err != nil {
			t.Errorf("Fetch delivered: %v", err)
		}
		if got[b.Cid] {
			t.Errorf("Fetch delivered %s twice", b.Cid)
		}
		got[b.Cid] = true
		return nil
	})
	return got, err
}

func testFetch(t *testing.T, n ipfs.Node) {
	blocks := Blocks(t, 700, 300)
	put(t, n, blocks...)
	cids := Cids(blocks)
	got, err := collect(t.Context(), t, n, append(cids, cids[:10]...))
	if err != nil || len(got) != len(blocks) {
		t.Fatalf("Fetch delivered %d of %d blocks: %v", len(got), len(blocks), err)
	}
	if err := n.Fetch(t.Context(), nil, nil); err != nil {
		t.Fatalf("Fetch of nothing: %v", err)
	}
}
