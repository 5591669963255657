package ipfs_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// newNode is a dag-pb node with these links, and so many bytes more.
func newNode(t *testing.T, more int, links ...cid.Cid) ipfs.Block {
	t.Helper()
	var out []byte
	for _, c := range links {
		link := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), c.Bytes())
		out = protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), link)
	}
	out = protowire.AppendString(protowire.AppendTag(out, 1, protowire.BytesType), strings.Repeat("x", more))
	b, err := ipfs.NewBlock(cid.DagProtobuf, out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// counting counts what is kept at once at most.
type counting struct {
	*ipfstest.Memory
	blocks int
}

func (c *counting) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return c.Memory.Fetch(ctx, cids, func(b ipfs.Block) error {
		c.blocks++
		return fn(b)
	})
}

// TestLoadHostile has trees that are no file's: too wide, too deep, too large, of something else. They are refused before much of them is fetched.
func TestLoadHostile(t *testing.T) {
	leaf, err := ipfs.NewBlock(cid.Raw, []byte("leaf"))
	if err != nil {
		t.Fatal(err)
	}
	many := make([]cid.Cid, 175)
	for i := range many {
		many[i] = leaf.Cid
	}
	inner := newNode(t, 0, many[:174]...)
	large := newNode(t, 1<<20, many[:174]...)
	const size = 64 << 30
	for what, root := range map[string]ipfs.Block{
		"too wide":            newNode(t, 0, many...),
		"too large":           large,
		"leaves too early":    newNode(t, 0, many[:9]...),
		"too few nodes":       newNode(t, 0, inner.Cid),
		"large nodes below":   newNode(t, 0, large.Cid, large.Cid, large.Cid, large.Cid, large.Cid, large.Cid, large.Cid, large.Cid, large.Cid),
		"nothing":             newNode(t, 0),
		"deeper than its own": newNode(t, 0, inner.Cid, inner.Cid, inner.Cid, inner.Cid, inner.Cid, inner.Cid, inner.Cid, inner.Cid, inner.Cid),
	} {
		node := ipfstest.NewMemory()
		if err := node.Put(t.Context(), leaf, inner, large, root); err != nil {
			t.Fatal(err)
		}
		src := &counting{Memory: node}
		if _, err := ipfs.LoadFile(t.Context(), src, root.Cid, size, ipfs.LayoutBlob); !errors.Is(err, ipfs.ErrFile) {
			t.Errorf("%s: %v", what, err)
		}
		if src.blocks > 3 {
			t.Errorf("%s: %d nodes are fetched", what, src.blocks)
		}
	}
}
