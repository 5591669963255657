package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"path"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer/layertest"
)

// memory is the least Source and Putter that the tests need.
type memory struct {
	mu     sync.Mutex
	blocks map[cid.Cid][]byte
}

func newMemory() *memory { return &memory{blocks: make(map[cid.Cid][]byte)} }

func (m *memory) Put(_ context.Context, blocks ...ipfs.Block) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range blocks {
		if err := ipfs.Verify(b.Cid, b.Data); err != nil {
			return err
		}
		m.blocks[b.Cid] = b.Data
	}
	return nil
}

func (m *memory) Get(_ context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blocks[c]
	if !ok {
		return nil, fmt.Errorf("%s: %w", c, ipfs.ErrNotFound)
	}
	return b, nil
}

func (m *memory) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return fetchEach(ctx, m.Get, cids, fn)
}

// fetchEach is the Fetch of a source that has only Get.
func fetchEach(ctx context.Context, get func(context.Context, cid.Cid) ([]byte, error), cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := get(ctx, c)
		if err != nil {
			return err
		}
		if err := fn(ipfs.Block{Cid: c, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// A file is an entry of a test's tar.
type file = layertest.File

func dir(name string) file        { return file{Name: name, Type: tar.TypeDir, Mode: 0o755} }
func hard(name, to string) file   { return file{Name: name, Type: tar.TypeLink, Link: to} }
func sym(name, to string) file    { return file{Name: name, Type: tar.TypeSymlink, Link: to, Mode: 0o777} }
func text(name, body string) file { return file{Name: name, Body: body} }
func device(name string, n int64) file {
	return file{Name: name, Type: tar.TypeChar, Major: n, Minor: n}
}

// convert writes a layer, opens it, checks rootfs against the index, and that the tar
// comes back.
func convert(t testing.TB, tarball []byte) (*Layer, *memory) {
	t.Helper()
	m := newMemory()
	r, err := Write(context.Background(), m, bytes.NewReader(tarball), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	l := checkLayer(t, m, r, tarball)
	return l, m
}

func checkLayer(t testing.TB, m *memory, r *Result, tarball []byte) *Layer {
	t.Helper()
	ctx := context.Background()
	l, err := Open(ctx, m, r.Root.Cid)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.CheckRootfs(ctx); err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if err := l.WriteTar(ctx, m, &back); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back.Bytes(), tarball) {
		t.Fatalf("the tar that comes back differs: %d bytes, %d were written", back.Len(), len(tarball))
	}
	if r.Bytes != int64(len(tarball)) {
		t.Fatalf("Result.Bytes = %d, the tar has %d", r.Bytes, len(tarball))
	}
	return l
}

// A flatTree is a Tree with all that it says, as tests look at it.
type flatTree struct {
	Nodes  []flatNode // Nodes[0] is the root
	Inodes []Inode
}

type flatNode struct {
	Name     string
	Inode    int32
	Children []int32
}

func flatten(tree *Tree) *flatTree {
	f := &flatTree{Nodes: []flatNode{{}}}
	for i := range tree.Len() {
		f.Inodes = append(f.Inodes, tree.Inode(i))
	}
	for at := 0; at < len(f.Nodes); at++ {
		for name, inode := range tree.Names(int(f.Nodes[at].Inode)) {
			f.Nodes[at].Children = append(f.Nodes[at].Children, int32(len(f.Nodes)))
			f.Nodes = append(f.Nodes, flatNode{Name: name, Inode: int32(inode)})
		}
	}
	return f
}

// encodedOf returns indexes as Merge takes them.
func encodedOf(t testing.TB, layers ...*Index) []*Encoded {
	t.Helper()
	var encoded []*Encoded
	for _, x := range layers {
		b, err := EncodeIndex(x)
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEncoded(b)
		if err != nil {
			t.Fatal(err)
		}
		encoded = append(encoded, e)
	}
	return encoded
}

func merge(t testing.TB, bottom bool, layers ...*Index) *flatTree {
	t.Helper()
	tree, err := Merge(encodedOf(t, layers...), bottom)
	if err != nil {
		t.Fatal(err)
	}
	return flatten(tree)
}

func index(t testing.TB, files ...file) *Index {
	t.Helper()
	l, _ := convert(t, layertest.Tar(t, files...))
	return l.Index
}

// zipped is a part of a layer as it is stored.
func zipped(t testing.TB, raw []byte) []byte {
	t.Helper()
	var zip bytes.Buffer
	w, err := newCompressor(&zip)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return zip.Bytes()
}

// putNode puts a dag-pb block.
func putNode(t testing.TB, m *memory, data []byte) ipfs.Block {
	t.Helper()
	b, err := ipfs.NewBlock(cid.DagProtobuf, data)
	if err == nil {
		err = m.Put(context.Background(), b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// putLayer puts a layer with this index, encoded as it is, beside another's rootfs and
// tar-split.
func putLayer(t testing.TB, m *memory, other *Layer, index []byte) ipfs.Block {
	t.Helper()
	return putNode(t, m, directoryNode([]link{
		{linkIndex, putIndexedOrLeaf(t, m, zipped(t, index)), 0}, {linkRootfs, other.Rootfs, 0}, {linkTarSplit, other.TarSplit, 0}}))
}

// eachName calls fn for every name in a tree, in preorder; first is another name that its
// inode had before, if any.
func eachName(tree *flatTree, fn func(name, first string, n *Inode)) {
	firsts := make(map[int32]string)
	var walk func(node int32, dir string)
	walk = func(node int32, dir string) {
		for _, c := range tree.Nodes[node].Children {
			inode := tree.Nodes[c].Inode
			name := path.Join(dir, tree.Nodes[c].Name)
			fn(name, firsts[inode], &tree.Inodes[inode])
			if firsts[inode] == "" {
				firsts[inode] = name
			}
			walk(c, name)
		}
	}
	walk(0, "")
}
