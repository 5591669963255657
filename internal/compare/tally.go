package compare

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"hash/fnv"
	"hash/maphash"
	"maps"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/layer"
)

// blockSize is that of the file system which sizes on disks are computed for.
const blockSize = 4096

// maxBlob is more than a layer has: who says more is not believed.
const maxBlob = 1 << 44

// maxLargest is how many of the largest contents have their paths kept.
const maxLargest = 20_000

// A content is something that images have, by its sum: a file, a leaf of one, or a smaller block; and often all of these.
type content struct {
	size              int64
	wire              int32 // bytes of a leaf as peers send it; -1 if that is not known
	files, leaf, part set   // images that have it as a file, as a leaf of 1 MiB, and as a block of 256 KiB
}

// An id is the half of a sum that tells contents apart.
type id [sumSize / 2]byte

func idOf(s sum) id { return id(s[:]) }

// A blob is a layer as something that images have.
type blob struct {
	size int64 // -1 if that is not known
	set  set
	read bool // the size is that of what was read, and not what somebody says
}

// A sighting is where a file with some content and path was seen first, and where one was that differs from it.
type sighting struct {
	owner, date uint32 // sums of these
	set, others set
	differs     uint8 // in what others differ
	size        int64
}

const (
	differsOwner = 1 << iota
	differsDate
)

// A place is a file that stands for its content.
type place struct {
	id    id
	size  int64
	image int
	path  string
}

// A tally adds up what images have. It is used by one goroutine at a time. A file takes some 120 bytes in it.
type tally struct {
	sets     *family
	contents map[id]content
	blobs    map[digest.Digest]blob // compressed
	tars     map[digest.Digest]blob
	chunks   map[sum]blob // of blobs
	seen     map[[2]uint64]sighting
	seed     maphash.Seed
	largest  largest
	unread   set                       // images of which only indexes were read
	files    []Amount                  // of each image, copies counted
	indexes  map[digest.Digest]indexed // by the identity of layers
	nameless set                       // images with a layer of which it is not known which blob it is in a registry
}

// An indexed is what is kept of a layer besides its files.
type indexed struct {
	set   set
	bytes int64
}

// A layerSum is what a layer is by itself.
type layerSum struct {
	scan
	files   Amount
	disk    int64 // bytes of it unpacked, in blocks of a file system
	entries int64
}

func newTally(images int) *tally {
	return &tally{
		sets: newFamily(images), contents: map[id]content{}, blobs: map[digest.Digest]blob{}, tars: map[digest.Digest]blob{}, chunks: map[sum]blob{},
		seen: map[[2]uint64]sighting{}, seed: maphash.MakeSeed(), largest: largest{at: map[id]int{}}, files: make([]Amount, images), indexes: map[digest.Digest]indexed{},
	}
}

// add adds a layer. uses says which images have it, and how often.
func (t *tally) add(s *scan, uses map[int]int) (layerSum, error) {
	which := set(0)
	for i := range uses {
		which = t.sets.with(which, i)
	}
	if s.Blob == "" || s.DiffID == "" {
		t.nameless = t.sets.union(t.nameless, which)
	}
	addBlob(t, t.blobs, s.Blob, s.BlobSize, s.read, which)
	addBlob(t, t.tars, s.DiffID, s.Tar, s.read, which)
	if !s.read {
		t.unread = t.sets.union(t.unread, which)
	}
	t.addChunks(s, which)
	own := layerSum{scan: *s}
	own.index, own.leaves, own.chunks, own.file = nil, nil, nil, nil
	w := walker{tally: t, scan: s, set: which, first: slices.Min(slices.Collect(maps.Keys(uses))), leaves: leafReader{s.leaves}, own: &own}
	err := s.index.Each(w.entry)
	for i, n := range uses {
		t.files[i].add(int64(n)*own.files.Count, int64(n)*own.files.Bytes)
	}
	x := t.indexes[s.identity()]
	t.indexes[s.identity()] = indexed{t.sets.union(x.set, which), max(x.bytes, s.IndexSize)}
	return own, err
}

// addBlob adds a blob by its digest, if that is known. What was read counts for its size, and else what most is said of it, whoever comes first.
func addBlob(t *tally, blobs map[digest.Digest]blob, d digest.Digest, size int64, read bool, which set) {
	if d == "" {
		return
	}
	b, ok := blobs[d]
	if !ok {
		b.size = unknownAmount
	}
	if size > maxBlob {
		size = unknownAmount
	}
	if read || !b.read {
		b.size = max(b.size, size)
		if read {
			b.size = size
		}
	}
	b.read, b.set = b.read || read, t.sets.union(b.set, which)
	blobs[d] = b
}

func (t *tally) addChunks(s *scan, which set) {
	for off := 0; off < len(s.chunks); off += sumSize {
		key := sum(s.chunks[off : off+sumSize])
		c := t.chunks[key]
		size := min(chunkSize, s.BlobSize-int64(off/sumSize)*chunkSize)
		t.chunks[key] = blob{size, t.sets.union(c.set, which), true}
	}
}

// A walker goes through the index of a layer.
type walker struct {
	*tally
	scan   *scan
	set    set
	first  int // of the images
	leaves leafReader
	path   []string
	own    *layerSum
}

func (w *walker) entry(_, depth int, e *layer.Entry) error {
	w.path = append(w.path[:max(depth, 0)], e.Name)
	w.own.entries++
	if e.Mode.IsDir() && !e.Whiteout {
		w.own.disk += blockSize
	}
	if !isFile(e) {
		return nil
	}
	w.own.files.add(1, e.Size)
	w.own.disk += (e.Size + blockSize - 1) / blockSize * blockSize
	f := e.File()
	key := sumOf(f.Cid)
	w.have(key, e.Size, func(c *content) {
		c.files = w.sets.union(c.files, w.set)
		if e.Size == 0 { // it has no blocks
			c.wire = 0
		}
	})
	w.see(key, e)
	w.largest.offer(place{idOf(key), e.Size, w.first, ""}, w.fullPath)
	if e.Size == 0 {
		return nil
	}
	return eachLeaf(e, w.leaf)
}

// have changes what is known of a content.
func (t *tally) have(key sum, size int64, change func(*content)) {
	c, ok := t.contents[idOf(key)]
	if !ok {
		c = content{size: size, wire: -1}
	}
	change(&c)
	t.contents[idOf(key)] = c
}

// leaf adds a leaf, and what it is in smaller blocks.
func (w *walker) leaf(s sum, size int64) error {
	if !w.scan.read {
		w.have(s, size, func(c *content) { c.leaf = w.sets.union(c.leaf, w.set) })
		return nil
	}
	one, err := w.leaves.next(size)
	if err != nil {
		return err
	}
	w.have(s, size, func(c *content) {
		c.leaf, c.wire = w.sets.union(c.leaf, w.set), int32(one.wire)
		if one.chunks == "" {
			c.part = w.sets.union(c.part, w.set)
		}
	})
	for off := 0; off < len(one.chunks); off += sumSize {
		n := min(chunkSize, size-int64(off/sumSize)*chunkSize)
		w.have(sum([]byte(one.chunks[off:off+sumSize])), n, func(c *content) { c.part = w.sets.union(c.part, w.set) })
	}
	return nil
}

// see compares what else is said of a file with what others say of one with its path and content.
func (w *walker) see(key sum, e *layer.Entry) {
	var h maphash.Hash
	h.SetSeed(w.seed)
	for _, name := range w.path {
		_, _ = h.WriteString(name)
		_ = h.WriteByte('/')
	}
	at := [2]uint64{h.Sum64(), binary.LittleEndian.Uint64(key[:])}
	owner, date := owners(e)
	s, ok := w.seen[at]
	if !ok {
		w.seen[at] = sighting{owner, date, w.set, 0, 0, e.Size}
		return
	}
	if s.owner == owner && s.date == date {
		s.set = w.sets.union(s.set, w.set)
	} else {
		s.others = w.sets.union(s.others, w.set)
	}
	if s.owner != owner {
		s.differs |= differsOwner
	}
	if s.date != date {
		s.differs |= differsDate
	}
	w.seen[at] = s
}

// owners are sums of whose a file is and what it allows, and of its date.
func owners(e *layer.Entry) (owner, date uint32) {
	h := fnv.New32a()
	var b [24]byte
	binary.LittleEndian.PutUint32(b[0:], e.UID)
	binary.LittleEndian.PutUint32(b[4:], e.GID)
	binary.LittleEndian.PutUint32(b[8:], uint32(e.Mode))
	_, _ = h.Write(b[:12])
	for _, x := range e.Xattrs() {
		_, _ = h.Write([]byte(x.Name + "\x00" + x.Value + "\x00"))
	}
	owner = h.Sum32()
	h.Reset()
	binary.LittleEndian.PutUint64(b[:], uint64(e.Mtime))
	binary.LittleEndian.PutUint32(b[8:], e.MtimeNsec)
	_, _ = h.Write(b[:12])
	return owner, h.Sum32()
}

// fullPath is that of the entry that is being looked at, whose names begin with the root's, which is empty.
func (w *walker) fullPath() string { return strings.Join(w.path, "/") }

// largest holds the largest contents, each with the place that comes first: the least of the images, and the least path there.
type largest struct {
	list []place    // a heap, the smallest first
	at   map[id]int // where they are in it
}

// offer takes a place if it is one of the largest.
func (l *largest) offer(p place, path func() string) {
	if i, ok := l.at[p.id]; ok {
		p.path = path()
		if before := l.list[i]; comparePlaces(p, before) < 0 {
			l.list[i] = p // as large as it was
		}
		return
	}
	if p.size == 0 || len(l.list) == maxLargest && !less(l.list[0], p) {
		return
	}
	p.path = path()
	if len(l.list) == maxLargest {
		heap.Pop(l)
	}
	heap.Push(l, p)
}

func comparePlaces(a, b place) int {
	return cmp.Or(cmp.Compare(a.image, b.image), cmp.Compare(a.path, b.path))
}

// less says whether a goes before b does. Of two of one size, the sum decides, so that the order in which layers come does not.
func less(a, b place) bool {
	return cmp.Or(cmp.Compare(a.size, b.size), slices.Compare(a.id[:], b.id[:])) < 0
}

func (l *largest) Len() int           { return len(l.list) }
func (l *largest) Less(i, j int) bool { return less(l.list[i], l.list[j]) }

func (l *largest) Swap(i, j int) {
	l.list[i], l.list[j] = l.list[j], l.list[i]
	l.at[l.list[i].id], l.at[l.list[j].id] = i, j
}

// Push implements heap.Interface.
func (l *largest) Push(x any) {
	p := x.(place)
	l.at[p.id] = len(l.list)
	l.list = append(l.list, p)
}

// Pop implements heap.Interface.
func (l *largest) Pop() any {
	p := l.list[len(l.list)-1]
	l.list = l.list[:len(l.list)-1]
	delete(l.at, p.id)
	return p
}
