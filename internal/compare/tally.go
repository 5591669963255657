package compare

import (
	"cmp"
	"container/heap"
	"encoding/binary"
	"hash/fnv"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/layer"
)

// blockSize is that of the file system which sizes on disks are computed for.
const blockSize = 4096

// maxLargest is how many of the largest contents have their paths kept.
const maxLargest = 2000

// A content is something that images have, by its sum: a file, a leaf of one, or a smaller block; and often all of these.
type content struct {
	size              int64
	wire              int64 // bytes as peers send it; -1 if that is not known
	files, leaf, part set   // images that have it as a file, as a leaf of 1 MiB, and as a block of 256 KiB
}

// A blob is a layer as something that images have.
type blob struct {
	size int64 // -1 if that is not known
	set  set
}

// A sighting is where a file with some content and path was seen first.
type sighting struct {
	owner, date uint32 // sums of these
	set         set
	differs     uint8 // in what others differ
	size        int64
}

const (
	differsOwner = 1 << iota
	differsDate
)

// A place is a file that stands for its content.
type place struct {
	sum   sum
	size  int64
	image int
	path  string
}

// A tally adds up what images have. It is used by one goroutine at a time. A file takes some 120 bytes in it.
type tally struct {
	sets     *family
	contents map[sum]content
	blobs    map[digest.Digest]blob // compressed
	tars     map[digest.Digest]blob
	chunks   map[sum]blob // of blobs
	seen     map[[2]uint64]sighting
	seed     maphash.Seed
	largest  largest
	unread   set      // images of which only indexes were read
	files    []Amount // of each image, copies counted
	indexes  []indexed
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
		sets: newFamily(images), contents: map[sum]content{}, blobs: map[digest.Digest]blob{}, tars: map[digest.Digest]blob{}, chunks: map[sum]blob{},
		seen: map[[2]uint64]sighting{}, seed: maphash.MakeSeed(), largest: largest{at: map[sum]int{}}, files: make([]Amount, images),
	}
}

// add adds a layer that all images of a set have, some of them several times.
func (t *tally) add(s *scan, images []int) (layerSum, error) {
	which := set(0)
	for _, i := range images {
		which = t.sets.with(which, i)
	}
	if s.Blob != "" {
		b := t.blobs[s.Blob]
		t.blobs[s.Blob] = blob{s.BlobSize, t.sets.union(b.set, which)}
	}
	if s.DiffID != "" {
		b, ok := t.tars[s.DiffID]
		size := s.Tar
		if ok {
			size = max(size, b.size)
		}
		t.tars[s.DiffID] = blob{size, t.sets.union(b.set, which)}
	}
	if !s.read {
		t.unread = t.sets.union(t.unread, which)
	}
	t.addChunks(s, which)
	own := layerSum{scan: *s}
	own.index, own.leaves, own.chunks, own.file = nil, nil, nil, nil
	w := walker{tally: t, scan: s, set: which, images: images, leaves: leafReader{s.leaves}, own: &own}
	err := s.index.Each(w.entry)
	for _, i := range images {
		t.files[i].add(own.files.Count, own.files.Bytes)
	}
	t.indexes = append(t.indexes, indexed{which, s.IndexSize})
	return own, err
}

func (t *tally) addChunks(s *scan, which set) {
	for off := 0; off < len(s.chunks); off += sumSize {
		key := sum(s.chunks[off : off+sumSize])
		c := t.chunks[key]
		size := min(chunkSize, s.BlobSize-int64(off/sumSize)*chunkSize)
		t.chunks[key] = blob{size, t.sets.union(c.set, which)}
	}
}

// A walker goes through the index of a layer.
type walker struct {
	*tally
	scan   *scan
	set    set
	images []int
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
	w.largest.offer(place{key, e.Size, w.images[0], ""}, w.fullPath)
	if e.Size == 0 {
		return nil
	}
	return eachLeaf(e, w.leaf)
}

// have changes what is known of a content.
func (t *tally) have(key sum, size int64, change func(*content)) {
	c, ok := t.contents[key]
	if !ok {
		c = content{size: size, wire: -1}
	}
	change(&c)
	t.contents[key] = c
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
		c.leaf, c.wire = w.sets.union(c.leaf, w.set), int64(one.wire)
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
		w.seen[at] = sighting{owner, date, w.set, 0, e.Size}
		return
	}
	if s.owner != owner {
		s.differs |= differsOwner
	}
	if s.date != date {
		s.differs |= differsDate
	}
	s.set = w.sets.union(s.set, w.set)
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
	list []place     // a heap, the smallest first
	at   map[sum]int // where they are in it
}

// offer takes a place if it is one of the largest.
func (l *largest) offer(p place, path func() string) {
	if i, ok := l.at[p.sum]; ok {
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
	return cmp.Or(cmp.Compare(a.size, b.size), slices.Compare(a.sum[:], b.sum[:])) < 0
}

func (l *largest) Len() int           { return len(l.list) }
func (l *largest) Less(i, j int) bool { return less(l.list[i], l.list[j]) }

func (l *largest) Swap(i, j int) {
	l.list[i], l.list[j] = l.list[j], l.list[i]
	l.at[l.list[i].sum], l.at[l.list[j].sum] = i, j
}

// Push implements heap.Interface.
func (l *largest) Push(x any) {
	p := x.(place)
	l.at[p.sum] = len(l.list)
	l.list = append(l.list, p)
}

// Pop implements heap.Interface.
func (l *largest) Pop() any {
	p := l.list[len(l.list)-1]
	l.list = l.list[:len(l.list)-1]
	delete(l.at, p.sum)
	return p
}
