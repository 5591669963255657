//go:build linux

package snapshotter

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// sumSize is the length in bytes of a sha2-256 digest.
const sumSize = 32

// A fileTable holds the files of a layer that have content, each CID once, sorted by
// digest. It takes 48 bytes a file and some 25 an entry of the layer, with the names: less
// than an index, and nearly no pointers for the collector to follow.
type fileTable struct {
	files  []fileRecord
	leaves []string // of the files that have several

	// same says of an entry whose content an earlier one has, which is the first of these.
	same map[int32]int32

	numbers func() []int32 // is byEntry, once

	// What the paths are made of, for all entries of the layer.
	parents []int32
	nameEnd []uint32 // the name of entry i ends here in names, and begins where the last one ended
	names   string
}

type fileRecord struct {
	sum    [sumSize]byte
	size   int64
	entry  int32
	leaves int32 // number of its leaves in the table; -1 for a file of one
}

func newFileTable(x *layer.Encoded) (*fileTable, error) {
	t := &fileTable{parents: make([]int32, 0, x.Len()), nameEnd: make([]uint32, 0, x.Len())}
	files, length := 0, 0
	err := x.Each(func(_, _ int, e *layer.Entry) error {
		if length += len(e.Name); hasContent(e) {
			files++
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var names strings.Builder
	names.Grow(length)
	t.files = make([]fileRecord, 0, files)
	var path []int32 // the entries from the root down to the one before
	err = x.Each(func(i, depth int, e *layer.Entry) error {
		parent := int32(-1)
		if depth > 0 {
			parent = path[depth-1]
		}
		path = append(path[:depth], int32(i))
		names.WriteString(e.Name)
		t.parents, t.nameEnd = append(t.parents, parent), append(t.nameEnd, uint32(names.Len()))
		if !hasContent(e) {
			return nil
		}
		r := fileRecord{sum: [sumSize]byte([]byte(e.Digest)), size: e.Size, entry: int32(i), leaves: -1}
		if leaves := e.Leaves(); leaves != "" {
			r.leaves = int32(len(t.leaves))
			t.leaves = append(t.leaves, strings.Clone(leaves)) // lets go of the index
		}
		t.files = append(t.files, r)
		return nil
	})
	t.names = names.String()
	t.sort()
	t.numbers = sync.OnceValue(t.byEntry)
	return t, err
}

// hasContent says whether an entry is a file whose content is an object.
func hasContent(e *layer.Entry) bool {
	return e.Mode.IsRegular() && e.Size > 0 && e.Link < 0 && !e.Whiteout && len(e.Digest) == sumSize
}

// sort sorts the files, and keeps of those with one CID that of the first entry.
func (t *fileTable) sort() {
	slices.SortFunc(t.files, func(a, b fileRecord) int { return cmp.Or(a.compare(&b), cmp.Compare(a.entry, b.entry)) })
	for i := 1; i < len(t.files); i++ {
		if t.files[i].compare(&t.files[i-1]) != 0 {
			continue
		}
		if t.same == nil {
			t.same = make(map[int32]int32)
		}
		t.same[t.files[i].entry] = t.first(t.files[i-1].entry)
	}
	all := len(t.files)
	t.files = slices.CompactFunc(t.files, func(a, b fileRecord) bool { return a.compare(&b) == 0 })
	if len(t.files) < all-all/8 {
		t.files = slices.Clone(t.files)
	}
}

// first returns the entry that stands for one among the files: the first with its content.
func (t *fileTable) first(entry int32) int32 {
	if first, ok := t.same[entry]; ok {
		return first
	}
	return entry
}

// byEntry returns the number of the file that an entry stands for, for each entry: they are in
// the order of their paths. It is -1 for those that stand for none.
func (t *fileTable) byEntry() []int32 {
	numbers := make([]int32, len(t.parents))
	for i := range numbers {
		numbers[i] = -1
	}
	for i := range t.files {
		numbers[t.files[i].entry] = int32(i)
	}
	return numbers
}

// beside calls yield with the other files in the directory of file i, those behind it first,
// until it returns false.
func (t *fileTable) beside(i int, yield func(ipfs.File) bool) {
	numbers := t.numbers()
	entry := int(t.files[i].entry)
	parent := t.parents[entry]
	is := func(e int) bool { return t.parents[e] == parent && numbers[e] >= 0 }
	for e := entry + 1; e < len(t.parents) && t.parents[e] >= parent; e++ { // below the directory
		if is(e) && !yield(t.file(int(numbers[e]))) {
			return
		}
	}
	for e := int(parent) + 1; e < entry; e++ {
		if is(e) && !yield(t.file(int(numbers[e]))) {
			return
		}
	}
}

// compare orders files by their CIDs. One of several leaves has another CID than one with the
// same digest and a single leaf.
func (r *fileRecord) compare(o *fileRecord) int {
	c := bytes.Compare(r.sum[:], o.sum[:])
	if c == 0 && (r.leaves < 0) != (o.leaves < 0) {
		c = 1
		if r.leaves < 0 {
			c = -1
		}
	}
	return c
}

// find returns the number of the file with this CID.
func (t *fileTable) find(c cid.Cid) (int, bool) {
	hash, err := mh.Decode(c.Hash())
	if err != nil || hash.Code != mh.SHA2_256 || len(hash.Digest) != sumSize {
		return 0, false
	}
	want := hash.Digest
	i := sort.Search(len(t.files), func(i int) bool { return bytes.Compare(t.files[i].sum[:], want) >= 0 })
	for ; i < len(t.files) && bytes.Equal(t.files[i].sum[:], want); i++ {
		if (t.files[i].leaves < 0) == (c.Type() == cid.Raw) {
			return i, c.Version() == 1
		}
	}
	return 0, false
}

// file returns file i, ready to be fetched.
func (t *fileTable) file(i int) ipfs.File {
	r := &t.files[i]
	c := ipfs.RawCid(string(r.sum[:]))
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
