package compare

import (
	"cmp"
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Schema is the version of the JSON form of a Report. Fields may be added to one version.
const Schema = 1

// A Report says what images share. Its JSON form is what compare --json prints; docs/compare.md has the words.
type Report struct {
	Schema int     `json:"schema"`
	Images []Image `json:"images"`
	// Levels are the units that images can share, from the largest to the smallest.
	Levels []Level `json:"levels"`
	// Pairs are all ordered pairs of two images.
	Pairs []Pair `json:"pairs"`
	Disk  Disk   `json:"disk"`
	// Shared and Unshared are the largest files that several images have, and that one has.
	Shared   []File `json:"largestShared"`
	Unshared []File `json:"largestUnshared"`
	// Touched are files that two images have at the same path with the same content, and that differ all the same.
	Touched Touched  `json:"touched"`
	Failed  []Failed `json:"failed,omitempty"` // images that could not be read
}

// An Image is one that is compared.
type Image struct {
	Ref      string        `json:"ref"`
	Digest   digest.Digest `json:"digest"` // of its manifest
	Platform string        `json:"platform"`
	IPCS     bool          `json:"ipcs"` // it is an ipcs image, of which no file's data was read
	Layers   []Layer       `json:"layers"`
	Files    Amount        `json:"files"` // all that its layers have, copies counted
	// Copies is what it has more than once: how many files are copies of others, and their bytes.
	Copies Amount `json:"copies"`
}

// A Layer is one layer of an image. What is not known of it is empty, or -1.
type Layer struct {
	Digest digest.Digest `json:"digest,omitempty"` // of the blob of the ordinary image
	DiffID digest.Digest `json:"diffID,omitempty"` // of its tar
	Blob   int64         `json:"blobBytes"`
	Tar    int64         `json:"tarBytes"`
	Files  Amount        `json:"files"`
}

// An Amount is how many, and how many bytes they have together.
type Amount struct {
	Count int64 `json:"count"`
	Bytes int64 `json:"bytes"`
}

func (a *Amount) add(n, bytes int64) { a.Count, a.Bytes = a.Count+n, a.Bytes+bytes }

// The names of levels.
const (
	LevelBlob     = "blob"    // compressed layers, as registries have them
	LevelTar      = "tar"     // uncompressed layers, by their diffIDs
	LevelFile     = "file"    // contents of regular files
	LevelBlock    = "block"   // the same, in blocks of 1 MiB: what ipcs moves
	LevelPart     = "part"    // the same, in blocks of 256 KiB
	LevelChunk    = "chunk"   // compressed layers, in chunks of 256 KiB: what "convert" without --mediatype moves
	unknownAmount = int64(-1) // in place of bytes that are not known
	maxSets       = 1000      // of a level that a report has; the rest is added up
	mib           = int64(1) << 20
	kib           = int64(1) << 10
)

// A Level is one unit that images can share.
type Level struct {
	Name string `json:"name"`
	// Partial says that it is not known of all images: those are counted as if they had nothing of it.
	Partial bool `json:"partial,omitempty"`
	// Before is what all images have, each by itself, and After what is left when what they share is there once.
	Before Amount       `json:"before"`
	After  Amount       `json:"after"`
	Images []LevelImage `json:"images"`
	Sets   []SharedBy   `json:"sets"` // those of two images and more, the most bytes first
	Rest   *Amount      `json:"otherSets,omitempty"`
	all    []setAmount  // of all sets
}

// A LevelImage is what one image has of a level: each thing once.
type LevelImage struct {
	Unique Amount `json:"unique"` // that no other image has
	Shared Amount `json:"shared"`
}

// SharedBy is what exactly these images have, and no other.
type SharedBy struct {
	Images []int `json:"images"`
	Amount
}

type setAmount struct {
	set set
	Amount
}

// A Pair is what it takes to get an image where another one is.
type Pair struct {
	Here int `json:"here"` // the number of the image that is there
	Get  int `json:"get"`  // of the one that is pulled
	// Shared is what both have, by level.
	Shared map[string]Amount `json:"shared"`
	// Registry is the bytes of compressed layers to pull; Raw the bytes of blocks of files, and of indexes, that ipcs gets, and Wire the same as peers send them; -1 if that
	// is not known.
	Registry int64 `json:"registryBytes"`
	Raw      int64 `json:"rawBytes"`
	Wire     int64 `json:"wireBytes"`
}

// Disk is what all images together take on one host, about: in blocks of 4 KiB.
type Disk struct {
	// Blobs are the compressed layers that containerd keeps, and Unpacked what overlayfs has of them: each layer once for each different one below it.
	Blobs    int64 `json:"overlayfsBlobs"`
	Unpacked int64 `json:"overlayfsUnpacked"`
	// Files are the files of ipcs, each once, and Indexes what else it keeps of layers.
	Files   int64 `json:"ipcsFiles"`
	Indexes int64 `json:"ipcsIndexes"`
}

// A File is a content, with a path that it has in the first of the images.
type File struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Images []int  `json:"images"`
}

// Touched are files that differ only in what they are, and not in what is in them: layers differ by them, files do not.
type Touched struct {
	Files Amount `json:"files"`
	Owner Amount `json:"owner"` // of these, in owner, mode or extended attributes
	Date  Amount `json:"date"`  // in their date
}

// A Failed is an image that is left out.
type Failed struct {
	Ref   string `json:"ref"`
	Error string `json:"error"`
}

// levels are the amounts of each set on each level.
func (t *tally) levels() []Level {
	by := map[string]map[set]*Amount{}
	add := func(level string, s set, bytes int64) {
		if s == 0 {
			return
		}
		if by[level] == nil {
			by[level] = map[set]*Amount{}
		}
		if by[level][s] == nil {
			by[level][s] = &Amount{}
		}
		by[level][s].add(1, max(bytes, 0))
	}
	partial := map[string]bool{LevelPart: t.unread != 0, LevelChunk: t.unread != 0, LevelBlob: t.nameless != 0, LevelTar: t.nameless != 0}
	for _, b := range t.blobs {
		add(LevelBlob, b.set, b.size)
		partial[LevelBlob] = partial[LevelBlob] || b.size < 0
	}
	for _, b := range t.tars {
		add(LevelTar, b.set, b.size)
		partial[LevelTar] = partial[LevelTar] || b.size < 0
	}
	for _, c := range t.contents {
		add(LevelFile, c.files, c.size)
		add(LevelBlock, c.leaf, c.size)
		add(LevelPart, c.part, c.size)
	}
	for _, b := range t.chunks {
		add(LevelChunk, b.set, b.size)
	}
	var levels []Level
	for _, name := range []string{LevelBlob, LevelTar, LevelFile, LevelBlock, LevelPart, LevelChunk} {
		levels = append(levels, t.level(name, by[name], partial[name]))
	}
	return levels
}

func (t *tally) level(name string, sets map[set]*Amount, partial bool) Level {
	l := Level{Name: name, Partial: partial, Images: make([]LevelImage, len(t.files)), Sets: []SharedBy{}}
	for s, a := range sets {
		l.all = append(l.all, setAmount{s, *a})
	}
	slices.SortFunc(l.all, func(a, b setAmount) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Count, a.Count), slices.Compare(t.sets.images(a.set), t.sets.images(b.set)))
	})
	for _, a := range l.all {
		images := t.sets.images(a.set)
		l.After.add(a.Count, a.Bytes)
		l.Before.add(a.Count*int64(len(images)), a.Bytes*int64(len(images)))
		for _, i := range images {
			if len(images) == 1 {
				l.Images[i].Unique.add(a.Count, a.Bytes)
			} else {
				l.Images[i].Shared.add(a.Count, a.Bytes)
			}
		}
		switch {
		case len(images) == 1:
		case len(l.Sets) < maxSets:
			l.Sets = append(l.Sets, SharedBy{images, a.Amount})
		default:
			if l.Rest == nil {
				l.Rest = &Amount{}
			}
			l.Rest.add(a.Count, a.Bytes)
		}
	}
	return l
}

// pairs are what any two images share, and what it takes to get one where the other is.
func (t *tally) pairs(ctx context.Context, levels []Level) ([]Pair, error) {
	n := len(t.files)
	shared := map[string][]Amount{}
	for _, l := range levels {
		shared[l.Name] = t.shared(l)
	}
	wires, unknown := t.wires()
	pairs := make([]Pair, 0, n*max(n-1, 0))
	for here := range n {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for get := range n {
			if here == get {
				continue
			}
			p := Pair{Here: here, Get: get, Shared: map[string]Amount{}}
			for name, matrix := range shared {
				p.Shared[name] = matrix[here*n+get]
			}
			p.Registry = shared[LevelBlob][get*n+get].Bytes - p.Shared[LevelBlob].Bytes
			if t.nameless != 0 && t.sets.has(t.nameless, get) {
				p.Registry = unknownAmount
			}
			p.Raw = shared[LevelBlock][get*n+get].Bytes - p.Shared[LevelBlock].Bytes
			p.Wire = wires[get*n+get] - wires[here*n+get]
			if unknown[get*n+get] > unknown[here*n+get] {
				p.Wire = unknownAmount
			}
			for _, x := range t.indexes {
				if t.sets.has(x.set, get) && !t.sets.has(x.set, here) {
					p.Raw += x.bytes
					p.Wire = sumKnown(p.Wire, x.bytes)
				}
			}
			pairs = append(pairs, p)
		}
	}
	return pairs, nil
}

// shared is a matrix of what two images have both.
func (t *tally) shared(l Level) []Amount {
	n := len(t.files)
	matrix := make([]Amount, n*n)
	for _, a := range l.all {
		images := t.sets.images(a.set)
		for _, here := range images {
			for _, get := range images {
				matrix[here*n+get].add(a.Count, a.Bytes)
			}
		}
	}
	return matrix
}

// wires is a matrix of the bytes of leaves that two images have both, as peers send them, and of how many leaves these bytes are not known.
func (t *tally) wires() (bytes []int64, unknown []int) {
	type amount struct {
		bytes   int64
		unknown int
	}
	sets := map[set]amount{}
	for _, c := range t.contents {
		if c.leaf == 0 {
			continue
		}
		a := sets[c.leaf]
		if c.wire < 0 {
			a.unknown++
		}
		a.bytes += int64(max(c.wire, 0))
		sets[c.leaf] = a
	}
	n := len(t.files)
	bytes, unknown = make([]int64, n*n), make([]int, n*n)
	for s, a := range sets {
		images := t.sets.images(s)
		for _, here := range images {
			for _, get := range images {
				bytes[here*n+get] += a.bytes
				unknown[here*n+get] += a.unknown
			}
		}
	}
	return bytes, unknown
}

// sumKnown adds, unless one is not known.
func sumKnown(a, b int64) int64 {
	if a < 0 || b < 0 {
		return unknownAmount
	}
	return a + b
}

// has says whether an image is in a set.
func (f *family) has(s set, image int) bool { return f.list[s][image/64]&(1<<(image%64)) != 0 }

// touched are the files that several images have at one path, and that differ in something else.
func (t *tally) touched() (out Touched) {
	for _, s := range t.seen {
		if s.differs == 0 || s.set == s.others || t.sets.size(t.sets.union(s.set, s.others)) < 2 {
			continue
		}
		out.Files.add(1, s.size)
		if s.differs&differsOwner != 0 {
			out.Owner.add(1, s.size)
		}
		if s.differs&differsDate != 0 {
			out.Date.add(1, s.size)
		}
	}
	return out
}

// filesOf returns the largest that several images have, and that one has.
func (t *tally) filesOf(most int) (shared, unshared []File) {
	list := slices.Clone(t.largest.list)
	slices.SortFunc(list, func(a, b place) int { return cmp.Or(cmp.Compare(b.size, a.size), comparePlaces(a, b)) })
	shared, unshared = []File{}, []File{}
	for _, p := range list {
		f := File{p.path, p.size, t.sets.images(t.contents[p.id].files)}
		if len(f.Images) > 1 && len(shared) < most {
			shared = append(shared, f)
		} else if len(f.Images) == 1 && len(unshared) < most {
			unshared = append(unshared, f)
		}
	}
	return shared, unshared
}
