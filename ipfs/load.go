package ipfs

import (
	"context"
	"fmt"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// maxLevels is more levels of nodes than any file has.
const maxLevels = 8

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
	leaves, err := loadLeaves(ctx, src, root, f.NumLeaves())
	if err != nil {
		return f, fmt.Errorf("leaves of file %s: %w", root, err)
	}
	f.Leaves = leaves
	return f, f.Check()
}

// loadLeaves returns the digests of the n leaves below a root.
func loadLeaves(ctx context.Context, src Fetcher, root cid.Cid, n int) (string, error) {
	level := []cid.Cid{root}
	for depth := 0; len(level) > 0 && level[0].Type() == cid.DagProtobuf; depth++ {
		if depth == maxLevels {
			return "", fmt.Errorf("%w: more than %d levels of nodes", ErrFile, maxLevels)
		}
		nodes := make(map[cid.Cid][]byte, len(level))
		for _, c := range level {
			nodes[c] = nil
		}
		err := src.Fetch(ctx, keys(nodes), func(b Block) error {
			nodes[b.Cid] = b.Data
			return nil
		})
		if err != nil {
			return "", err
		}
		var next []cid.Cid
		for _, c := range level {
			links, err := Links(Block{Cid: c, Data: nodes[c]})
			if err != nil {
				return "", err
			}
			if next = append(next, links...); len(next) > n {
				return "", fmt.Errorf("%w: more leaves than its size needs, which are %d", ErrFile, n)
			}
		}
		level = next
	}
	if len(level) != n {
		return "", fmt.Errorf("%w: %d leaves, its size needs %d", ErrFile, len(level), n)
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

func keys(nodes map[cid.Cid][]byte) []cid.Cid {
	list := make([]cid.Cid, 0, len(nodes))
	for c := range nodes {
		list = append(list, c)
	}
	return list
}
