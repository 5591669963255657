package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
)

// WriteTar writes the tar that the layer was made of, bit for bit: OpenTar and Write.
func (l *Layer) WriteTar(ctx context.Context, src Source, w io.Writer) error {
	t, err := l.OpenTar(ctx, src)
	if err != nil {
		return err
	}
	return t.Write(ctx, w)
}

// A Tar is the tar that a layer was made of, ready to be written.
type Tar struct {
	Size     int64 // bytes
	layer    *Layer
	index    entries
	src      Source
	split    ipfs.File
	places   []int32
	shadowed []cid.Cid
}

// OpenTar opens the layer whose root is root, and its tar, as Layer.OpenTar does. It holds
// the index as it is written, which takes less than half of what a Layer takes.
func OpenTar(ctx context.Context, src Source, root cid.Cid) (*Tar, error) {
	b, err := getRoot(ctx, src, root)
	if err != nil {
		return nil, err
	}
	l, x, err := openEncoded(ctx, src, b)
	if err != nil {
		return nil, err
	}
	return l.tar(ctx, src, x)
}

// OpenTar reads the tar-split of a layer, which tells how long the tar is; the contents of
// files are not read.
func (l *Layer) OpenTar(ctx context.Context, src Source) (*Tar, error) {
	return l.tar(ctx, src, l.Index)
}

func (l *Layer) tar(ctx context.Context, src Source, x entries) (*Tar, error) {
	t := &Tar{layer: l, index: x, src: src}
	if err := t.open(ctx); err != nil {
		return nil, fmt.Errorf("tar of layer %s: %w", l.Root.Cid, err)
	}
	return t, nil
}

// Files returns how many regular files the layer has, hard links counted once.
func (t *Tar) Files() int { return countFiles(t.index) }

// Entries returns how many entries the layer's index has.
func (t *Tar) Entries() int { return t.index.count() }

// Root returns the layer root.
func (t *Tar) Root() ipfs.Block { return t.layer.Root }

func (t *Tar) open(ctx context.Context) (err error) {
	if t.split, err = loadFile(ctx, t.src, t.layer.TarSplit, MaxFile); err != nil {
		return err
	}
	if err := t.readTable(ctx, openFile(ctx, t.src, t.split)); err != nil {
		return err
	}
	t.shadowed, err = t.layer.loadShadowed(ctx, t.src, t.places)
	return err
}

// Write writes the tar. It reads the tar-split for the second time, since the table is at
// its end, now along with the contents. Whoever needs certainty hashes what is written, and
// compares it with the diffID. A hostile tar-split can make a tar of any length: w may end
// it with an error. Tars may be written as often as wanted, also at the same time.
func (t *Tar) Write(ctx context.Context, w io.Writer) error {
	if err := t.write(ctx, w); err != nil {
		return fmt.Errorf("write tar of layer %s: %w", t.layer.Root.Cid, err)
	}
	return nil
}

func (t *Tar) write(ctx context.Context, w io.Writer) (err error) {
	s, err := newSplitReader(openFile(ctx, t.src, t.split))
	if err != nil {
		return err
	}
	defer s.close()
	shadowed := t.shadowed
	out := &window{src: t.src, w: w}
	defer func() { err = errors.Join(err, out.wait()) }()
	for k := 0; ; {
		rec, err := s.next()
		if err == io.EOF {
			return out.flush(ctx)
		}
		if err != nil {
			return err
		}
		if len(rec.raw) > 0 {
			err = out.raw(ctx, rec.raw)
		} else if k == len(t.places) {
			return splitError("it changed while it was read", nil)
		} else {
			err = t.payload(ctx, out, t.places[k], &shadowed, rec.size)
			k++
		}
		if err != nil {
			return err
		}
	}
}

// readTable reads the tar-split for its table, and checks it on the way.
func (t *Tar) readTable(ctx context.Context, r io.Reader) error {
	s, err := newSplitReader(r)
	if err != nil {
		return err
	}
	defer s.close()
	n := 0
	for {
		// A few bytes can decompress to terabytes.
		if err := ctx.Err(); err != nil {
			return err
		}
		rec, err := s.next()
		if err == io.EOF {
			t.places, err = s.table(n, t.index.count())
			return err
		}
		if err != nil {
			return err
		}
		size := int64(len(rec.raw)) + rec.size
		if t.Size += size; t.Size < size {
			return fmt.Errorf("tar-split: %w (a tar of 2^63 bytes)", ErrTooLarge)
		}
		if len(rec.raw) == 0 {
			if n++; n > MaxPayloads {
				return fmt.Errorf("tar-split: %w (%d payloads)", ErrTooLarge, MaxPayloads)
			}
		}
	}
}

// payload writes the content of one file.
func (t *Tar) payload(ctx context.Context, out *window, place int32, shadowed *[]cid.Cid, size int64) error {
	var f ipfs.File
	if place < 0 {
		c := (*shadowed)[0]
		*shadowed = (*shadowed)[1:]
		var err error
		if f, err = loadFile(ctx, t.src, c, size); errors.Is(err, ErrTooLarge) {
			return splitError("a shadowed file is larger than its payload", nil)
		} else if err != nil {
			return fmt.Errorf("shadowed file: %w", err)
		}
	} else {
		var ok bool
		if f, ok = fileAt(t.index, int(place)); !ok {
			return splitError(fmt.Sprintf("entry %d is not a file", place), nil)
		}
	}
	if f.Size != size {
		return splitError(fmt.Sprintf("a payload of %d bytes is a file of %d", size, f.Size), nil)
	}
	for i := range f.NumLeaves() {
		if err := out.leaf(ctx, f.Leaf(i), f.LeafLen(i)); err != nil {
			return err
		}
	}
	return nil
}

// loadShadowed returns the CIDs of the shadowed files in the order of their numbers. There
// must be as many as the table says.
func (l *Layer) loadShadowed(ctx context.Context, src Source, places []int32) ([]cid.Cid, error) {
	n := 0
	for _, p := range places {
		if p < 0 {
			n++
		}
	}
	if n == 0 && !l.Shadowed.Defined() {
		return nil, nil
	}
	if n == 0 || !l.Shadowed.Defined() {
		return nil, fmt.Errorf("%w: the table names %d shadowed files, the layer root has shadowed: %t", ErrTarSplit, n, l.Shadowed.Defined())
	}
	links, err := listDirectory(ctx, src, l.Shadowed, n)
	if errors.Is(err, errDagPB) {
		err = splitError("shadowed", err)
	}
	if err != nil {
		return nil, fmt.Errorf("directory of shadowed files: %w", err)
	}
	if len(links) != n {
		return nil, fmt.Errorf("%w: %d shadowed files, the table names %d", ErrTarSplit, len(links), n)
	}
	files := make([]cid.Cid, n)
	for _, k := range links {
		i, err := strconv.Atoi(k.name)
		if err != nil || i < 0 || i >= n || strconv.Itoa(i) != k.name || files[i].Defined() {
			return nil, fmt.Errorf("%w: shadowed file %.40q of %d", ErrTarSplit, k.name, n)
		}
		files[i] = k.cid
	}
	return files, nil
}

// listDirectory lists a UnixFS directory, sharded or not, of at most n links.
func listDirectory(ctx context.Context, src Source, c cid.Cid, n int) ([]link, error) {
	data, err := getVerified(ctx, src, c)
	if err != nil {
		return nil, err
	}
	links, unixfs, err := parseNode(string(data))
	if err != nil {
		return nil, err
	}
	if unixfs == string([]byte{tagDataType, unixfsDirectory}) {
		return links, nil
	}
	return listShards(ctx, src, link{cid: c}, n)
}

// maxShardDepth is how many levels a sharded directory has: a byte of a 64-bit hash each.
const maxShardDepth = 8

// listShards lists a sharded directory: the names of its links have two hex digits in
// front, and those of shards nothing else.
func listShards(ctx context.Context, src Source, root link, n int) ([]link, error) {
	var out []link
	level := []link{root}
	// A shard that is linked twice has the same names twice. A few such could stand for
	// millions of links.
	seen := make(map[cid.Cid]struct{})
	for depth := 0; len(level) > 0; depth++ {
		if depth == maxShardDepth {
			return nil, fmt.Errorf("sharded directory: %w (%d levels)", ErrTooLarge, maxShardDepth)
		}
		var next []link
		for _, shard := range level {
			if _, again := seen[shard.cid]; again {
				return nil, fmt.Errorf("sharded directory: %w: shard %s comes twice", errDagPB, shard.cid)
			}
			seen[shard.cid] = struct{}{}
			links, err := loadShard(ctx, src, shard.cid)
			if err != nil {
				return nil, fmt.Errorf("sharded directory: %w", err)
			}
			for _, k := range links {
				if len(k.name) == 2 {
					next = append(next, k)
					continue
				}
				k.name = k.name[2:]
				out = append(out, k)
			}
			// A shard that is not the root leads to two links at least.
			if len(out) > n || len(next) > n {
				return nil, fmt.Errorf("sharded directory: %w (%d links)", ErrTooLarge, n)
			}
		}
		level = next
	}
	return out, nil
}

func loadShard(ctx context.Context, src Source, c cid.Cid) ([]link, error) {
	data, err := getVerified(ctx, src, c)
	if err != nil {
		return nil, err
	}
	links, unixfs, err := parseNode(string(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c, err)
	}
	if !strings.HasPrefix(unixfs, string([]byte{tagDataType, unixfsShard})) {
		return nil, fmt.Errorf("%s: %w: not a directory", c, errDagPB)
	}
	for _, k := range links {
		if len(k.name) < 2 {
			return nil, fmt.Errorf("%s: %w: link %q", c, errDagPB, k.name)
		}
	}
	return links, nil
}
