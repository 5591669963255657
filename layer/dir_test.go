package layer

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	mdutils "github.com/ipfs/boxo/ipld/merkledag/test"
	"github.com/ipfs/boxo/ipld/unixfs"
	uio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// boxoDirectory builds a directory with boxo, by the profile.
func boxoDirectory(t *testing.T, children map[string]ipld.Node) ipld.Node {
	t.Helper()
	d, err := uio.NewDirectory(mdutils.Mock(), uio.WithCidBuilder(uio.UnixFS_v1_2025.CidBuilder()),
		uio.WithSizeEstimationMode(uio.UnixFS_v1_2025.HAMTSizeEstimation))
	if err != nil {
		t.Fatal(err)
	}
	for name, nd := range children {
		if err := d.AddChild(context.Background(), name, nd); err != nil {
			t.Fatal(err)
		}
	}
	nd, err := d.GetNode()
	if err != nil {
		t.Fatal(err)
	}
	return nd
}

// TestRootfsLikeBoxo holds directories, plain and sharded, and symlinks to boxo, the
// reference for the profile. The sizes are around the one where sharding starts.
func TestRootfsLikeBoxo(t *testing.T) {
	leaf := merkledag.NewRawNode([]byte("x"))
	data, err := unixfs.SymlinkData("some/target")
	if err != nil {
		t.Fatal(err)
	}
	symlink := merkledag.NodeWithData(data)
	if err := symlink.SetCidBuilder(uio.UnixFS_v1_2025.CidBuilder()); err != nil {
		t.Fatal(err)
	}
	sharded := 0
	for _, n := range []int{0, 1, 2, 5139, 5140, 5141, 6000} {
		files := []file{dir("dir"), sym("link", "some/target")}
		children := make(map[string]ipld.Node)
		for i := range n {
			name := fmt.Sprintf("%07d", i)
			files = append(files, text("dir/"+name, "x"))
			children[name] = leaf
		}
		sub := boxoDirectory(t, children)
		l, _ := convert(t, layertest.Tar(t, files...))
		if want := boxoDirectory(t, map[string]ipld.Node{"dir": sub, "link": symlink}); !l.Rootfs.Equals(want.Cid()) {
			t.Errorf("%d entries: rootfs is %s, boxo makes %s", n, l.Rootfs, want.Cid())
		}
		if len(sub.Links()) < n {
			sharded++
		}
	}
	if sharded < 2 || sharded > 3 {
		t.Errorf("%d of the directories are sharded: the sizes do not lie around the threshold", sharded)
	}
}

// TestRootfsFile follows the links of rootfs down to the content of a file.
func TestRootfsFile(t *testing.T) {
	body := strings.Repeat("0123456789abcdef", 3<<16)
	l, m := convert(t, layertest.Tar(t, dir("d"), text("d/f", body), hard("d/g", "d/f"), device("d/dev", 3), text(".wh.w", "")))
	c := l.Rootfs
	for _, name := range []string{"d", "g"} {
		links, _, err := parseNode(string(m.blocks[c]))
		if err != nil {
			t.Fatal(err)
		}
		names := ""
		for _, k := range links {
			if names += k.name + " "; k.name == name {
				c = k.cid
			}
		}
		if want := map[string]string{"d": "d ", "g": "f g "}[name]; names != want {
			t.Errorf("links are %q, want %q", names, want)
		}
	}
	f, err := loadFile(context.Background(), m, c, MaxFile)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(openFile(context.Background(), m, f)); err != nil || got.String() != body {
		t.Errorf("read %d bytes, %v", got.Len(), err)
	}
}

// TestEmptyLeaf wants the leaf of empty files to be there like any other.
func TestEmptyLeaf(t *testing.T) {
	l, m := convert(t, layertest.Tar(t, text("empty", "")))
	f := l.Index.Entries[1].File()
	if _, ok := m.blocks[f.Cid]; !ok || f.Size != 0 || f.Cid.Type() != cid.Raw || f.NumLeaves() != 1 {
		t.Errorf("%+v is in the node: %t", f, ok)
	}
}

func TestLoadFileHostile(t *testing.T) {
	ctx := context.Background()
	m := newMemory()
	leaf, err := ipfs.NewBlock(cid.Raw, []byte("leaf"))
	if err != nil {
		t.Fatal(err)
	}
	node := func(data string, links ...link) cid.Cid {
		b := directoryNode(links)
		b = append(b[:len(b)-4], tagNodeData, byte(len(data)))
		block, err := ipfs.NewBlock(cid.DagProtobuf, append(b, data...))
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Put(ctx, leaf, block); err != nil {
			t.Fatal(err)
		}
		return block.Cid
	}
	file := "\x08\x02\x18"
	for name, c := range map[string]cid.Cid{
		"one leaf below a node": node(file+"\x04", link{cid: leaf.Cid, tsize: 4}),
		"no size":               node("\x08\x02"),
		"size of 2^62":          node(file + "\x80\x80\x80\x80\x80\x80\x80\x80\x40"),
		"wrong sizes":           node(file+"\x80\x80\x80\x01", link{cid: leaf.Cid}, link{cid: leaf.Cid}),
		"node of nodes":         node(file+"\x80\x80\x80\x01", link{cid: node(file+"\x04", link{cid: leaf.Cid}, link{cid: leaf.Cid}, link{cid: leaf.Cid})}),
		"not dag-pb":            node("") /* no data at all */, "directory": node("\x08\x01"),
	} {
		if f, err := loadFile(ctx, m, c, MaxFile); err == nil {
			t.Errorf("%s: accepted as %+v", name, f)
		}
	}
}
