package ipfs

import (
	"fmt"

	"github.com/ipfs/go-cid"
	"google.golang.org/protobuf/encoding/protowire"
)

// unixfsFile is the Type of a UnixFS file (unixfs.proto, Data.DataType).
const unixfsFile = 2

// node is a file's subtree while it is built: what the link to it says.
type node struct {
	cid   cid.Cid
	size  uint64 // bytes of the file below
	tsize uint64 // bytes of all blocks of the subtree
}

// Build builds the dag-pb nodes of a file from its leaves (at least two), balanced, as every IPFS importer does, and
// returns the CID of the root, whatever f.Cid is. Each node is handed to emit, children first; emit may be nil.
func (f File) Build(emit func(Block) error) (cid.Cid, error) {
	root, err := f.build(emit)
	return root.cid, err
}

// BuildFile is Build of a file of LayoutFile, from its leaves (32 bytes of sha2-256 each).
func BuildFile(size int64, leaves string, emit func(Block) error) (cid.Cid, error) {
	return File{Size: size, Leaves: leaves}.Build(emit)
}

// DagSize returns the sum of the sizes of all blocks of the file: the Tsize of a
// directory's link to it.
func (f File) DagSize() (uint64, error) {
	if f.NumLeaves() == 1 {
		return uint64(f.Size), nil
	}
	root, err := f.build(nil)
	return root.tsize, err
}

func (f File) build(emit func(Block) error) (node, error) {
	n, width := f.NumLeaves(), f.Layout.width()
	if n < 2 || len(f.Leaves) != n*hashSize {
		return node{}, fmt.Errorf("%w: %d bytes need %d leaves, %d hash bytes given", ErrFile, f.Size, n, len(f.Leaves))
	}
	level := make([]node, n)
	for i := range level {
		l := uint64(f.LeafLen(i))
		level[i] = node{f.Leaf(i), l, l}
	}
	// A level of one node is the root. Filling each level from the left gives the
	// same tree as growing the root by one level at a time.
	for len(level) > 1 {
		next := level[:0]
		for i := 0; i < len(level); i += width {
			b, parent, err := fileNode(level[i:min(i+width, len(level))])
			if err != nil {
				return node{}, err
			}
			if emit != nil {
				if err := emit(b); err != nil {
					return node{}, err
				}
			}
			next = append(next, parent)
		}
		level = next
	}
	return level[0], nil
}

// fileNode encodes one dag-pb node of a file: links, then the UnixFS data, in the
// order and with the empty names that all importers write.
func fileNode(children []node) (Block, node, error) {
	var out, link, data []byte
	var parent node
	data = protowire.AppendTag(data, 1, protowire.VarintType)
	data = protowire.AppendVarint(data, unixfsFile)
	var sizes []byte
	for _, c := range children {
		link = link[:0]
		link = protowire.AppendTag(link, 1, protowire.BytesType)
		link = protowire.AppendBytes(link, c.cid.Bytes())
		link = protowire.AppendTag(link, 2, protowire.BytesType)
		link = protowire.AppendBytes(link, nil)
		link = protowire.AppendTag(link, 3, protowire.VarintType)
		link = protowire.AppendVarint(link, c.tsize)
		out = protowire.AppendTag(out, 2, protowire.BytesType)
		out = protowire.AppendBytes(out, link)
		sizes = protowire.AppendTag(sizes, 4, protowire.VarintType)
		sizes = protowire.AppendVarint(sizes, c.size)
		parent.size += c.size
		parent.tsize += c.tsize
	}
	data = protowire.AppendTag(data, 3, protowire.VarintType)
	data = protowire.AppendVarint(data, parent.size)
	data = append(data, sizes...)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendBytes(out, data)
	b, err := NewBlock(cid.DagProtobuf, out)
	if err != nil {
		return Block{}, node{}, err
	}
	parent.cid = b.Cid
	parent.tsize += uint64(len(out))
	return b, parent, nil
}
