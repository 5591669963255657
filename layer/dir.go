package layer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/boxo/ipld/unixfs/hamt"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

// Directories of profile unixfs-v1-2025 (IPIP-0499): one dag-pb node as long as that is
// not larger than maxDirectory, else a HAMT of shardWidth. The size is that of the
// encoded node ("block-bytes"), not the sum of names and CIDs that older importers use.
const (
	maxDirectory = 256 << 10
	shardWidth   = 256
)

// emit takes the blocks of a DAG as they are made, children first.
type emit func(ipfs.Block) error

// BuildRootfs builds the UnixFS directory of an index and returns its CID: what rootfs
// must be. Each block of a directory, symlink or file node goes to emit, which may be
// nil; leaves do not.
func BuildRootfs(ctx context.Context, x *Index, emit func(ipfs.Block) error) (cid.Cid, error) {
	l, err := buildRootfs(ctx, x, emit)
	return l.cid, err
}

func buildRootfs(ctx context.Context, x entries, out emit) (link, error) {
	if out == nil {
		out = func(ipfs.Block) error { return nil }
	}
	r := rootfs{entries: x, out: out}
	err := x.each(func(_, depth int, e *Entry) error {
		if depth == 0 {
			r.open = append(r.open, openDir{})
			return nil
		}
		if err := r.closeTo(ctx, depth); err != nil {
			return err
		}
		if e.Mode.IsDir() {
			r.open = append(r.open, openDir{name: e.Name})
			return nil
		}
		l, ok, err := r.leaf(e)
		if err != nil {
			return fmt.Errorf("%q: %w", r.path(e.Name), err)
		}
		if ok {
			r.add(l)
		}
		return nil
	})
	if err == nil {
		err = r.closeTo(ctx, 1)
	}
	if err != nil {
		return link{}, err
	}
	return buildDirectory(ctx, r.open[0].links, out)
}

// A rootfs is one that is being built: the directories that are not complete, from the
// root on.
type rootfs struct {
	entries entries
	out     emit
	open    []openDir
}

type openDir struct {
	name  string
	links []link
}

// path returns the path of a name in the last directory.
func (r *rootfs) path(name string) string {
	names := make([]string, 0, len(r.open))
	for _, d := range r.open[1:] {
		names = append(names, d.name)
	}
	return strings.Join(append(names, name), "/")
}

func (r *rootfs) add(l link) {
	up := &r.open[len(r.open)-1]
	up.links = append(up.links, l)
}

// closeTo finishes directories until so many are left.
func (r *rootfs) closeTo(ctx context.Context, depth int) error {
	for len(r.open) > depth {
		top := r.open[len(r.open)-1]
		r.open = r.open[:len(r.open)-1]
		l, err := buildDirectory(ctx, top.links, r.out)
		if err != nil {
			return fmt.Errorf("directory %q: %w", r.path(top.name), err)
		}
		l.name = top.name
		r.add(l)
	}
	return nil
}

// leaf returns the link to a file or symlink; other types are not in rootfs.
func (r *rootfs) leaf(e *Entry) (link, bool, error) {
	l := link{name: e.Name}
	if e.Whiteout {
		return l, false, nil
	}
	first := e.Link < 0
	if !first {
		to, _ := r.entries.at(int(e.Link))
		e = &to
	}
	switch {
	case e.Mode.IsRegular():
		f := e.File()
		l.cid, l.tsize = f.Cid, uint64(f.Size)
		if f.Leaves == "" {
			return l, true, nil
		}
		if first {
			if _, err := ipfs.BuildFile(f.Size, f.Leaves, r.out); err != nil {
				return l, false, err
			}
		}
		size, err := f.DagSize()
		l.tsize = size
		return l, true, err
	case e.Mode.Type() == os.ModeSymlink:
		b, err := ipfs.NewBlock(cid.DagProtobuf, symlinkNode(e.Target))
		if err != nil {
			return l, false, err
		}
		l.cid, l.tsize = b.Cid, uint64(len(b.Data))
		return l, true, r.out(b)
	}
	return l, false, nil
}

// buildDirectory builds the directory with these links, sorted by name.
func buildDirectory(ctx context.Context, links []link, out emit) (link, error) {
	size := len(directoryNode(nil))
	for _, l := range links {
		size += linkSize(l)
	}
	if size > maxDirectory {
		return buildShards(ctx, links, out)
	}
	b, err := ipfs.NewBlock(cid.DagProtobuf, directoryNode(links))
	if err != nil {
		return link{}, err
	}
	d := link{cid: b.Cid, tsize: uint64(len(b.Data))}
	for _, l := range links {
		d.tsize += l.tsize
	}
	return d, out(b)
}

// buildShards builds a sharded directory, with boxo's HAMT.
func buildShards(ctx context.Context, links []link, out emit) (link, error) {
	shard, err := hamt.NewShard(&nodes{out: out}, shardWidth)
	if err != nil {
		return link{}, err
	}
	shard.SetCidBuilder(cid.V1Builder{Codec: cid.DagProtobuf, MhType: mh.SHA2_256})
	for _, l := range links {
		if err := shard.SetLink(ctx, l.name, &ipld.Link{Name: l.name, Size: l.tsize, Cid: l.cid}); err != nil {
			// Names whose hashes are equal; the only error there is.
			return link{}, fmt.Errorf("add %q to sharded directory: %w: %w", l.name, ErrTooLarge, err)
		}
	}
	root, err := shard.Node()
	if err != nil {
		return link{}, err
	}
	tsize, err := root.Size()
	return link{cid: root.Cid(), tsize: tsize}, err
}

// nodes is as much of an ipld.DAGService as boxo's HAMT calls: it hands on the nodes
// that are added, once each.
type nodes struct {
	out  emit
	last cid.Cid // boxo adds every shard twice in a row
}

var _ ipld.DAGService = (*nodes)(nil)

var errReadOnly = errors.New("not a store")

func (n *nodes) Add(_ context.Context, nd ipld.Node) error {
	if nd.Cid().Equals(n.last) {
		return nil
	}
	n.last = nd.Cid()
	return n.out(ipfs.Block{Cid: nd.Cid(), Data: nd.RawData()})
}

func (n *nodes) AddMany(ctx context.Context, nds []ipld.Node) error {
	for _, nd := range nds {
		if err := n.Add(ctx, nd); err != nil {
			return err
		}
	}
	return nil
}

func (n *nodes) Get(context.Context, cid.Cid) (ipld.Node, error) { return nil, errReadOnly }

func (n *nodes) GetMany(ctx context.Context, cids []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(cids))
	defer close(out)
	for _, c := range cids {
		nd, err := n.Get(ctx, c)
		out <- &ipld.NodeOption{Node: nd, Err: err}
	}
	return out
}

func (n *nodes) Remove(context.Context, cid.Cid) error       { return errReadOnly }
func (n *nodes) RemoveMany(context.Context, []cid.Cid) error { return errReadOnly }
