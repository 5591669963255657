// Package dagtest builds DAGs with boxo, as IPFS's own importers do, and what no importer would, for
// tests of what reads them.
package dagtest

import (
	"bytes"
	"testing"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/ipld/merkledag"
	mdutils "github.com/ipfs/boxo/ipld/merkledag/test"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
)

// A Builder builds DAGs in a node.
type Builder struct {
	t    testing.TB
	dst  ipfs.Putter
	serv ipld.DAGService
	ids  cid.Builder
}

// New returns a builder of DAGs of CIDv1 in dst.
func New(t testing.TB, dst ipfs.Putter) *Builder {
	return &Builder{t, dst, mdutils.Mock(), cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256}}
}

// V0 makes it build DAGs of CIDv0.
func (b *Builder) V0() *Builder {
	b.ids = merkledag.V0CidPrefix()
	return b
}

// put copies a DAG to the node.
func (b *Builder) put(n ipld.Node) cid.Cid {
	b.t.Helper()
	if n.Cid().Prefix().MhType == mh.IDENTITY {
		return n.Cid()
	}
	block, err := ipfs.VerifiedBlock(n.Cid(), n.RawData())
	if err == nil {
		err = b.dst.Put(b.t.Context(), block)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	for _, l := range n.Links() {
		if child, err := b.serv.Get(b.t.Context(), l.Cid); err == nil {
			b.put(child)
		}
	}
	return n.Cid()
}

// node returns a node that was built before.
func (b *Builder) node(c cid.Cid) ipld.Node {
	b.t.Helper()
	n, err := b.serv.Get(b.t.Context(), c)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// How says how a file is built.
type How struct {
	Leaf    int // bytes of a leaf
	Links   int // of a node
	Wrapped bool
	Trickle bool
}

// File builds a file.
func (b *Builder) File(data []byte, how How) cid.Cid {
	b.t.Helper()
	params := helpers.DagBuilderParams{Maxlinks: how.Links, RawLeaves: !how.Wrapped, CidBuilder: b.ids, Dagserv: b.serv}
	db, err := params.New(chunk.NewSizeSplitter(bytes.NewReader(data), int64(how.Leaf)))
	if err != nil {
		b.t.Fatal(err)
	}
	layout := balanced.Layout
	if how.Trickle {
		layout = trickle.Layout
	}
	n, err := layout(db)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.put(n)
}

// Raw builds a file of one leaf.
func (b *Builder) Raw(data string) cid.Cid {
	b.t.Helper()
	n := merkledag.NewRawNode([]byte(data))
	b.add(n)
	return b.put(n)
}

// Symlink builds a symbolic link.
func (b *Builder) Symlink(target string) cid.Cid {
	b.t.Helper()
	data, err := unixfs.SymlinkData(target)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.Node(data)
}

// Directory builds a directory in one node.
func (b *Builder) Directory(entries map[string]cid.Cid) cid.Cid {
	b.t.Helper()
	dir, err := uio.NewBasicDirectory(b.serv, uio.WithCidBuilder(b.ids))
	if err != nil {
		b.t.Fatal(err)
	}
	for name, c := range entries {
		if err := dir.AddChild(b.t.Context(), name, b.node(c)); err != nil {
			b.t.Fatal(err)
		}
	}
	n, err := dir.GetNode()
	if err != nil {
		b.t.Fatal(err)
	}
	b.add(n)
	return b.put(n)
}

// Sharded builds a sharded directory (HAMT), of this many links a node.
func (b *Builder) Sharded(entries map[string]cid.Cid, width int) cid.Cid {
	b.t.Helper()
	shard, err := hamt.NewShard(b.serv, width)
	if err != nil {
		b.t.Fatal(err)
	}
	shard.SetCidBuilder(b.ids)
	for name, c := range entries {
		if err := shard.Set(b.t.Context(), name, b.node(c)); err != nil {
			b.t.Fatal(err)
		}
	}
	n, err := shard.Node()
	if err != nil {
		b.t.Fatal(err)
	}
	b.add(n)
	return b.put(n)
}

// Node builds any node of dag-pb, with what links to others that need not be there.
func (b *Builder) Node(data []byte, links ...*ipld.Link) cid.Cid {
	b.t.Helper()
	n := merkledag.NodeWithData(data)
	if err := n.SetCidBuilder(b.ids); err != nil {
		b.t.Fatal(err)
	}
	if err := n.SetLinks(links); err != nil {
		b.t.Fatal(err)
	}
	b.add(n)
	return b.put(n)
}

func (b *Builder) add(n ipld.Node) {
	b.t.Helper()
	if err := b.serv.Add(b.t.Context(), n); err != nil {
		b.t.Fatal(err)
	}
}
