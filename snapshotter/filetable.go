//go:build linux

package snapshotter

import (
	"cmp"
	"encoding/binary"
	"slices"
	"sort"
	"strings"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// sumSize is the length in bytes of a sha2-256 digest.
const sumSize = 32

// A fileTable holds the files of a layer that have content, each CID once, sorted by
// digest. It takes some 70 bytes a file and 30 an entry of the layer, with the names:
// a third of an index, and no pointers for the collector to follow.
type fileTable struct {
	sums   []byte // sumSize for each file
	files  []fileRecord
	leaves []string // of the files that have several

	// What the paths are made of, for all entries of the layer.
	parents []int32
	nameEnd []uint32 // the name of entry i ends here in names, and begins where the last one ended
	names   string
}

type fileRecord struct {
	size   int64
	entry  int32
	leaves int32 // number of its leaves in the table; -1 for a file of one
}

func newFileTable(x *layer.Index) *fileTable {
	t := &fileTable{parents: make([]int32, len(x.Entries)), nameEnd: make([]uint32, len(x.Entries))}
	var names strings.Builder
	for i := range x.Entries {
		e := &x.Entries[i]
		names.WriteString(e.Name)
		t.parents[i], t.nameEnd[i] = e.Parent, uint32(names.Len())
	}
	t.names = names.String()
	order := sortedFiles(x)
	t.sums = make([]byte, 0, len(order)*sumSize)
	t.files = make([]fileRecord, 0, len(order))
	for _, o := range order {
		e := &x.Entries[o.entry]
		r := fileRecord{size: e.Size, entry: o.entry, leaves: -1}
		if o.several {
			r.leaves = int32(len(t.leaves))
			t.leaves = append(t.leaves, strings.Clone(e.Leaves())) // lets go of the index
		}
		t.sums = append(t.sums, e.Digest...)
		t.files = append(t.files, r)
	}
	return t
}

// sortKey orders the files of an index. Most comparisons end with prefix, which needs no
// look at the entry.
type sortKey struct {
	prefix  uint64 // the first bytes of the digest
	entry   int32
	several bool // has several leaves: such a file has another CID than one with this digest and a single leaf
}

// sortedFiles returns the files of an index that have content, each CID once.
func sortedFiles(x *layer.Index) []sortKey {
	var keys []sortKey
	for i := range x.Entries {
		e := &x.Entries[i]
		if e.Mode.IsRegular() && e.Size > 0 && e.Link < 0 && !e.Whiteout && len(e.Digest) == sumSize {
			prefix := binary.BigEndian.Uint64([]byte(e.Digest[:8]))
			keys = append(keys, sortKey{prefix, int32(i), e.Leaves() != ""})
		}
	}
	same := func(a, b sortKey) int {
		c := cmp.Compare(a.prefix, b.prefix)
		if c == 0 {
			c = strings.Compare(x.Entries[a.entry].Digest, x.Entries[b.entry].Digest)
		}
		if c == 0 && a.several != b.several {
			c = 1
			if b.several {
				c = -1
			}
		}
		return c
	}
	slices.SortFunc(keys, func(a, b sortKey) int {
		if c := same(a, b); c != 0 {
			return c
		}
		return cmp.Compare(a.entry, b.entry)
	})
	return slices.CompactFunc(keys, func(a, b sortKey) bool { return same(a, b) == 0 })
}

func (t *fileTable) sum(i int) []byte { return t.sums[i*sumSize : (i+1)*sumSize] }

// find returns the number of the file with this CID.
func (t *fileTable) find(c cid.Cid) (int, bool) {
	hash, err := mh.Decode(c.Hash())
	if err != nil || hash.Code != mh.SHA2_256 || len(hash.Digest) != sumSize {
		return 0, false
	}
	want := string(hash.Digest)
	i := sort.Search(len(t.files), func(i int) bool { return string(t.sum(i)) >= want })
	for ; i < len(t.files) && string(t.sum(i)) == want; i++ {
		if (t.files[i].leaves < 0) == (c.Type() == cid.Raw) {
			return i, c.Version() == 1
		}
	}
	return 0, false
}

// file returns file i, ready to be fetched.
func (t *fileTable) file(i int) ipfs.File {
	r := t.files[i]
	c := ipfs.RawCid(string(t.sum(i)))
	if r.leaves < 0 {
		return ipfs.File{Cid: c, Size: r.size}
	}
	return ipfs.File{Cid: cid.NewCidV1(cid.DagProtobuf, c.Hash()), Size: r.size, Leaves: t.leaves[r.leaves]}
}

// path returns the path of file i in its layer.
func (t *fileTable) path(i int) string {
	var path string
	for e := t.files[i].entry; e > 0; e = t.parents[e] {
		path = "/" + t.names[t.nameEnd[e-1]:t.nameEnd[e]] + path
	}
	return path
}
