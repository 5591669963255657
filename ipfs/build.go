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

// BuildFile builds the dag-pb nodes of a file from its leaves (32 bytes of sha2-256
// each, at least two leaves), balanced, Width links a node, as profile
// unixfs-v1-2025 and every IPFS importer do, and returns the CID of the root. Each
// node is handed to emit, children first; emit may be nil.
func BuildFile(size int64, leaves string, emit func(Block) error) (cid.Cid, error) {
	root, err := buildFile(size, leaves, emit)
	return root.cid, err
}

// DagSize returns the sum of the sizes of all blocks of the file: the Tsize of a
// directory's link to it.
func (f File) DagSize() (uint64, error) {
	if f.NumLeaves() == 1 {
		return uint64(f.Size), nil
	}
	root, err := buildFile(f.Size, f.Leaves, nil)
	return root.tsize, err
}

func buildFile(size int64, leaves string, emit func(Block) error) (node, error) {
	n := NumLeaves(size)
	if n < 2 || len(leaves) != n*hashSize {
		return node{}, fmt.Errorf("%w: %d bytes need %d leaves, %d hash bytes given", ErrFile, size, n, len(leaves))
	}
	level := make([]node, n)
	for i := range level {
		l := uint64(min(size-int64(i)*LeafSize, LeafSize))
		level[i] = node{RawCid(leaves[i*hashSize : (i+1)*hashSize]), l, l}
	}
	// A level of one node is the root. Filling each level from the left gives the
	// same tree as growing the root by one level at a time.
	for len(level) > 1 {
		next := level[:0]
		for i := 0; i < len(level); i += Width {
			b, parent, err := fileNode(level[i:min(i+Width, len(level))])
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
