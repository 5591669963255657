package seed

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"slices"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
)

// freeFrame is how much longer a frame may be than its blocks, besides a part in 128.
const freeFrame = 1024

// maxSame is how many blocks of a seed may begin their digests alike: a file that is the bytes of a dag-pb node makes two, and
// more only have it by intent.
const maxSame = 8

// tableMagic begins a table, and says its version.
const tableMagic = "ipcs seed 1\n"

// prefixSize is how much of a digest a table has.
const prefixSize = 8

// A Frame is a part of the seed that decompresses alone.
type Frame struct {
	Off   int64 // in the seed
	Len   int   // bytes in the seed
	Size  int   // bytes decompressed
	first int32 // number of its first block in the seed
}

// A Table says which frame each block is in, and where. Blocks are numbered as they come in the seed.
type Table struct {
	Frames   []Frame
	prefixes []uint64 // of each block
	ends     []int32  // of each block in its frame, decompressed; with dagPbBit
}

// dagPbBit marks blocks that are dag-pb, and not raw.
const dagPbBit = math.MinInt32

func (t *Table) dagPb(number int) bool { return t.ends[number]&dagPbBit != 0 }

func (t *Table) end(number int32) int { return int(t.ends[number] &^ dagPbBit) }

// A Place is where a block may be: the table knows the beginning of its digest.
type Place struct {
	Frame    int // in Table.Frames
	From, To int // in the decompressed frame
}

func isDagPb(c cid.Cid) bool { return c.Prefix().Codec == cid.DagProtobuf }

// Prefix is what tables have of a block's digest, which they begin with as a number. Whatever is no block of ours is in
// none.
func Prefix(c cid.Cid) (prefix uint64, ok bool) {
	p := c.Prefix()
	if p.Version != 1 || p.MhType != mh.SHA2_256 || p.MhLength != 32 || (p.Codec != cid.Raw && p.Codec != cid.DagProtobuf) {
		return 0, false
	}
	hash := c.Hash()
	return binary.BigEndian.Uint64(hash[len(hash)-32:]), true
}

// Prefixes yields the prefixes of all blocks in their order. At most 8 are the same.
func (t *Table) Prefixes() iter.Seq2[int, uint64] { return slices.All(t.prefixes) }

// At returns where the block with a number lies, which has the prefix of c, if its codec is that of c.
func (t *Table) At(number int, c cid.Cid) (Place, bool) {
	if t.dagPb(number) != isDagPb(c) {
		return Place{}, false
	}
	return t.place(int32(number)), true
}

func (t *Table) place(number int32) Place {
	f, exact := slices.BinarySearchFunc(t.Frames, number, func(f Frame, n int32) int { return cmp.Compare(f.first, n) })
	if !exact {
		f--
	}
	p := Place{Frame: f, To: t.end(number)}
	if number > t.Frames[f].first {
		p.From = t.end(number - 1)
	}
	return p
}

// Len returns how many blocks there are.
func (t *Table) Len() int { return len(t.ends) }

// A tableWriter writes a table as frames are written.
type tableWriter struct {
	frames   []byte
	prefixes []byte
	count    int
}

// add adds a frame of Len bytes with these blocks.
func (w *tableWriter) add(length int, blocks []cid.Cid, sizes []int) {
	w.count++
	w.frames = binary.AppendUvarint(w.frames, uint64(length))
	w.frames = binary.AppendUvarint(w.frames, uint64(len(blocks)))
	for i, c := range blocks {
		size := uint64(sizes[i]) << 1
		if isDagPb(c) {
			size |= 1
		}
		w.frames = binary.AppendUvarint(w.frames, size)
		hash := c.Hash()
		w.prefixes = append(w.prefixes, hash[len(hash)-32:][:prefixSize]...)
	}
}

func (w *tableWriter) bytes() []byte {
	b := binary.AppendUvarint([]byte(tableMagic), uint64(w.count))
	b = append(b, w.frames...)
	return append(b, w.prefixes...)
}

// A tableReader reads a table, until the first error.
type tableReader struct {
	b   []byte
	err error
}

func (r *tableReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: table: %s", ErrSeed, fmt.Sprintf(format, args...))
	}
}

// uvarint reads a number of at most most, in its only form.
func (r *tableReader) uvarint(what string, most uint64) int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	switch {
	case n <= 0 || n != len(binary.AppendUvarint(nil, v)):
		r.fail("%s cannot be read", what)
	case v > most:
		r.fail("%s is %d, more than %d", what, v, most)
	default:
		r.b = r.b[n:]
		return int(v)
	}
	return 0
}

// parseTable reads a table. The frames lie one after the other from the beginning of the seed, the last
// of them from mount to end.
func parseTable(b []byte, mount, end int64) (*Table, error) {
	if len(b) < len(tableMagic) || string(b[:len(tableMagic)]) != tableMagic {
		return nil, fmt.Errorf("%w: table: it does not begin with %q", ErrSeed, tableMagic)
	}
	r := &tableReader{b: b[len(tableMagic):]}
	frames := r.uvarint("number of frames", MaxBlocks)
	t := &Table{Frames: make([]Frame, 0, min(frames, len(b)/2))}
	off := int64(0)
	for i := range frames {
		f := Frame{Off: off, Len: r.uvarint("length of a frame", math.MaxInt32), first: int32(len(t.ends))}
		blocks, most := r.uvarint("number of blocks", MaxBlocks), MaxFrame
		if i == frames-1 {
			most = MaxMount
		}
		for j := 0; j < blocks && r.err == nil; j++ {
			size := r.uvarint("size of a block", MaxFrame<<1|1)
			if f.Size += size >> 1; f.Size > most {
				r.fail("a frame has more than %d bytes", most)
			}
			end := int32(f.Size)
			if size&1 == 1 {
				end |= dagPbBit
			}
			t.ends = append(t.ends, end)
		}
		if blocks == 0 || f.Len == 0 {
			r.fail("frame %d is empty", i)
		}
		if f.Len > f.Size+f.Size/128+freeFrame {
			r.fail("frame %d is longer than what is in it", i)
		}
		if len(t.ends) > MaxBlocks {
			r.fail("there are more than %d blocks", MaxBlocks)
		}
		if r.err != nil {
			return nil, r.err
		}
		t.Frames = append(t.Frames, f)
		off += int64(f.Len)
	}
	if frames == 0 || t.Frames[frames-1].Off != mount || off != end {
		r.fail("frames do not fill the seed up to it")
	}
	if len(r.b) != prefixSize*len(t.ends) {
		r.fail("%d bytes of digests for %d blocks", len(r.b), len(t.ends))
	}
	if r.err != nil {
		return nil, r.err
	}
	t.prefixes = make([]uint64, len(t.ends))
	for i := range t.prefixes {
		t.prefixes[i] = binary.BigEndian.Uint64(r.b[i*prefixSize:])
	}
	if prefix, ok := tooMany(t.prefixes); ok {
		r.fail("more than %d digests begin with %016x", maxSame, prefix)
		return nil, r.err
	}
	return t, nil
}

// tooMany returns a prefix that more blocks have than may.
func tooMany(prefixes []uint64) (prefix uint64, ok bool) {
	sorted := slices.Sorted(slices.Values(prefixes))
	for i := maxSame; i < len(sorted); i++ {
		if sorted[i] == sorted[i-maxSame] {
			return sorted[i], true
		}
	}
	return 0, false
}
