package layer

import (
	"bytes"
	"context"
	"fmt"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
)

// An Encoded is an index as it is written, with the place of each entry: a third of what an
// Index takes in memory, for who goes through it, or looks up single entries. It has been
// checked as an Index is, is not changed, and may be read by any number of goroutines.
type Encoded struct {
	pieces []string
	start  []uint32 // where the pieces start
	hint   []int32  // of byte n times indexPiece: its piece
	fields []uint32 // where the entries start
}

// NewEncoded reads an index and accepts what DecodeIndex does.
func NewEncoded(b []byte) (*Encoded, error) { return newEncoded([]string{string(b)}) }

// ReadIndex reads the bytes of an index file, as layers have them, and accepts what Open does.
func ReadIndex(file []byte) (*Encoded, error) {
	if len(file) > MaxIndexFile {
		return nil, fmt.Errorf("index file of %d bytes: %w", len(file), ErrTooLarge)
	}
	pieces, err := inflateIndex(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return newEncoded(pieces)
}

// newEncoded checks an index that is in pieces, as decodeIndex does.
func newEncoded(pieces []string) (*Encoded, error) {
	x := &Encoded{pieces: pieces}
	n := 0
	for i, p := range pieces {
		x.start = append(x.start, uint32(n))
		for n += len(p); len(x.hint)*indexPiece < n; {
			x.hint = append(x.hint, int32(i))
		}
	}
	v := validator{entries: x}
	err := scanIndex(pieces, func(count int) {
		x.fields = make([]uint32, 0, count)
	}, func(start, depth int, e *Entry) error {
		x.fields = append(x.fields, uint32(start))
		return v.entry(len(x.fields)-1, depth, e)
	})
	if err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	return x, nil
}

// OpenEncoded opens a layer as Open does, for who needs no more than its root and its index.
func OpenEncoded(ctx context.Context, src Source, root cid.Cid) (ipfs.Block, *Encoded, error) {
	b, err := getRoot(ctx, src, root)
	if err != nil {
		return b, nil, err
	}
	x, err := OpenEncodedBlock(ctx, src, b)
	return b, x, err
}

// OpenEncodedBlock does so when the root block is at hand; it verifies the block.
func OpenEncodedBlock(ctx context.Context, src Source, root ipfs.Block) (*Encoded, error) {
	_, x, err := openEncoded(ctx, src, root)
	return x, err
}

// Len returns the number of entries.
func (x *Encoded) Len() int { return len(x.fields) }

// Size returns how many bytes it takes in memory, about.
func (x *Encoded) Size() int {
	const field = 4 // bytes
	size := field * len(x.fields)
	for _, p := range x.pieces {
		size += len(p)
	}
	return size
}

// At returns entry i, but for its parent.
func (x *Encoded) At(i int) Entry {
	e, _ := x.at(i)
	return e
}

// Each calls f with every entry in order, and its depth, which says what the parent is: the
// Parent is not set. f may use the entry until it returns; its error ends the walk.
func (x *Encoded) Each(f func(i, depth int, e *Entry) error) error { return x.each(f) }

func (x *Encoded) count() int { return len(x.fields) }

// entry returns the bytes of entry i.
func (x *Encoded) entry(i int) string {
	off := x.fields[i]
	p := x.hint[off/indexPiece]
	for int(p)+1 < len(x.start) && x.start[p+1] <= off {
		p++ // pieces are hardly shorter than what there is a hint for
	}
	r := cursor{s: x.pieces[p], off: int(off - x.start[p])}
	r.uvarint()
	return r.bytes()
}

func (x *Encoded) at(i int) (Entry, int) {
	var e Entry
	depth, err := e.decode(x.entry(i))
	if err != nil {
		panic(fmt.Sprintf("entry %d, which was decoded before: %v", i, err))
	}
	return e, int(depth)
}

// name returns the name of entry i.
func (x *Encoded) name(i int32) string {
	r := cursor{s: x.entry(int(i))}
	if r.uvarint() != tagName { // the first field; the root has none
		return ""
	}
	return r.bytes()
}

func (x *Encoded) each(f func(i, depth int, e *Entry) error) error {
	i := -1
	return scanIndex(x.pieces, func(int) {}, func(_, depth int, e *Entry) error {
		i++
		return f(i, depth, e)
	})
}
