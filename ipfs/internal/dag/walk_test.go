package dag_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

func walk(t *testing.T, src dag.Source, root cid.Cid) (order []cid.Cid) {
	t.Helper()
	err := dag.Walk(t.Context(), src, root, func(b ipfs.Block) error {
		order = append(order, b.Cid)
		return ipfs.Verify(b.Cid, b.Data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return order
}

// inDepth is the order that a walk in depth has, written down in the plainest way.
func inDepth(t *testing.T, src ipfs.Getter, root cid.Cid, seen map[cid.Cid]bool) (order []cid.Cid) {
	t.Helper()
	if seen[root] {
		return nil
	}
	seen[root] = true
	data, err := src.Get(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	links, err := ipfs.Links(ipfs.Block{Cid: root, Data: data})
	if err != nil {
		t.Fatal(err)
	}
	order = append(order, root)
	for _, c := range links {
		order = append(order, inDepth(t, src, c, seen)...)
	}
	return order
}

func TestWalk(t *testing.T) {
	node := ipfstest.NewMemory()
	root, _ := tree(dagtest.New(t, node))
	want := inDepth(t, node, root, map[cid.Cid]bool{})
	if got := walk(t, node, root); !slices.Equal(got, want) {
		t.Errorf("%d blocks, want %d in the order of depth", len(got), len(want))
	}
	if len(want) != node.Len() {
		t.Errorf("%d blocks of %d", len(want), node.Len())
	}
	enough := errors.New("enough")
	if err := dag.Walk(t.Context(), node, root, func(ipfs.Block) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("an error of fn: %v", err)
	}
	node.Remove(want[len(want)/2])
	if err := dag.Walk(t.Context(), node, root, func(ipfs.Block) error { return nil }); !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("a block is missing: %v", err)
	}
}

// TestWalkRefuses does not take what it knows nothing of for a leaf.
func TestWalkRefuses(t *testing.T) {
	node := ipfstest.NewMemory()
	b := dagtest.New(t, node)
	cbor, err := ipfs.NewBlock(cid.DagCBOR, []byte{0xa0})
	if err != nil {
		t.Fatal(err)
	}
	inlined := cid.NewCidV1(cid.DagProtobuf, []byte{0, 0})
	for what, test := range map[string]struct {
		root cid.Cid
		want error
	}{
		"another codec":       {cbor.Cid, dag.ErrCodec},
		"a link to one":       {b.Node(nil, &ipld.Link{Cid: cbor.Cid}), dag.ErrCodec},
		"a node inlined":      {b.Node(nil, &ipld.Link{Cid: inlined}), ipfs.ErrHash},
		"another hash":        {cid.NewCidV1(cid.Raw, append([]byte{0x13, 64}, make([]byte, 64)...)), ipfs.ErrHash},
		"what is not here":    {ipfstest.Blocks(t, 1, 10)[0].Cid, ipfs.ErrNotFound},
		"a link to something": {b.Node(nil, &ipld.Link{Cid: ipfstest.Blocks(t, 1, 10)[0].Cid}), ipfs.ErrNotFound},
	} {
		for name, fn := range map[string]func() error{
			"Walk":     func() error { return dag.Walk(t.Context(), node, test.root, func(ipfs.Block) error { return nil }) },
			"Complete": func() error { return dag.Complete(t.Context(), node, test.root) },
		} {
			if err := fn(); !errors.Is(err, test.want) {
				t.Errorf("%s of %s: %v, want %v", name, what, err, test.want)
			}
		}
	}
}

// TestComplete gets what is missing, and no more.
func TestComplete(t *testing.T) {
	here, there := ipfstest.NewMemory(), ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, there))
	here.Connect(there)
	put := func(c cid.Cid) {
		data, err := there.Get(t.Context(), c)
		if err == nil {
			err = here.Put(t.Context(), ipfs.Block{Cid: c, Data: data})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	put(files["small"])
	put(files["file 7"])
	if err := dag.Complete(t.Context(), here, root); err != nil {
		t.Fatal(err)
	}
	if here.Len() != there.Len() || here.Counts().FromPeers != there.Len()-2 {
		t.Errorf("%d blocks of %d, %d of them from the peer", here.Len(), there.Len(), here.Counts().FromPeers)
	}
	before := here.Counts()
	if err := dag.Complete(t.Context(), here, root); err != nil {
		t.Fatal(err)
	}
	if after := here.Counts(); after.FromPeers != before.FromPeers || after.Puts != before.Puts {
		t.Errorf("all was here, and yet %+v was %+v before", after, before)
	}
}
