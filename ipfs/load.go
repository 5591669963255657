package ipfs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	// maxLink is more than what a link takes in a node, with its size, and maxNode what a node takes besides.
	maxLink, maxNode = 96, 64
	// loadBatch is how many nodes are fetched at a time.
	loadBatch = 16
)

// IsSHA256 says whether the hash of a CID is a sha2-256 of 32 bytes, as all are that ipcs uses.
func IsSHA256(c cid.Cid) bool {
	p := c.Prefix()
	return p.MhType == mh.SHA2_256 && p.MhLength == hashSize
}

// LoadFile finds the leaves of the file with this root, by its nodes, of which it fetches a level at a time. What it returns is proven (File.Check): the
// error is ErrFile, wrapped, if the file is not of this size and layout. Who does not trust the size bounds it before: 32 bytes of memory are taken for each leaf.
func LoadFile(ctx context.Context, src Fetcher, root cid.Cid, size int64, layout Layout) (File, error) {
	f := File{Cid: root, Size: size, Layout: layout}
	if f.NumLeaves() == 1 {
		return f, f.Check()
	}
	leaves, err := f.loadLeaves(ctx, src)
	if err != nil {
		return f, fmt.Errorf("leaves of file %s: %w", root, err)
	}
	f.Leaves = leaves
	return f, f.Check()
}

// FileSize returns the size that the root of a file of more than one leaf claims to have, in its UnixFS data. The error is ErrFile, wrapped, if it is the root of none.
func FileSize(root Block) (int64, error) {
	size, file := uint64(0), false
	err := eachField(root.Data, fieldNodeData, func(data []byte) error {
		return eachNumber(data, func(field protowire.Number, value uint64) {
			switch field {
			case fieldDataType:
				file = value == unixfsFile
			case fieldDataSize:
				size = value
			}
		})
	})
	if err == nil && (!file || size == 0 || size > math.MaxInt64) {
		err = errors.New("it claims no size")
	}
	if err != nil {
		return 0, fmt.Errorf("root %s: %w: %w", root.Cid, ErrFile, err)
	}
	return int64(size), nil
}

// levels are the numbers of nodes on each level of a file, from the root down, and last of its leaves.
func (f File) levels() []int {
	n, width := f.NumLeaves(), f.Layout.width()
	list := []int{n}
	for n > 1 {
		n = (n + width - 1) / width
		list = append(list, n)
	}
	slices.Reverse(list)
	return list
}

// loadLeaves returns the digests of the leaves of a file. The size says how many nodes each level has, and the layout how large one can be: what has more is refused
// before it is kept.
func (f File) loadLeaves(ctx context.Context, src Fetcher) (string, error) {
	level := []cid.Cid{f.Cid}
	for depth, want := range f.levels() {
		if len(level) != want {
			return "", fmt.Errorf("%w: level %d has %d nodes, its size needs %d", ErrFile, depth, len(level), want)
		}
		if want == f.NumLeaves() {
			break
		}
		var next []cid.Cid
		for batch := range slices.Chunk(level, loadBatch) {
			links, err := f.below(ctx, src, batch)
			if err != nil {
				return "", err
			}
			next = append(next, links...)
		}
		level = next
	}
	var leaves strings.Builder
	for _, c := range level {
		if c.Type() != cid.Raw || !IsSHA256(c) {
			return "", fmt.Errorf("%w: %s is no raw leaf", ErrFile, c)
		}
		hash := c.Hash()
		leaves.Write(hash[len(hash)-hashSize:])
	}
	return leaves.String(), nil
}

// below returns what some nodes link to, in order.
func (f File) below(ctx context.Context, src Fetcher, nodes []cid.Cid) (next []cid.Cid, err error) {
	links := make(map[cid.Cid][]cid.Cid, len(nodes))
	for _, c := range nodes {
		if c.Type() != cid.DagProtobuf {
			return nil, fmt.Errorf("%w: %s is no node", ErrFile, c)
		}
		links[c] = nil
	}
	err = src.Fetch(ctx, keys(links), func(b Block) error {
		if len(b.Data) > maxNode+f.Layout.width()*maxLink {
			return fmt.Errorf("%w: node %s has %d bytes", ErrFile, b.Cid, len(b.Data))
		}
		list, err := Links(b)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFile, err)
		}
		if len(list) > f.Layout.width() {
			return fmt.Errorf("%w: node %s has %d links", ErrFile, b.Cid, len(list))
		}
		links[b.Cid] = list
		return nil
	})
	for _, c := range nodes {
		next = append(next, links[c]...)
	}
	return next, err
}

func keys(nodes map[cid.Cid][]cid.Cid) []cid.Cid {
	list := make([]cid.Cid, 0, len(nodes))
	for c := range nodes {
		list = append(list, c)
	}
	return list
}
