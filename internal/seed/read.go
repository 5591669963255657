package seed

import (
	"encoding/binary"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/zstd"

	"github.com/hinshun/ipcs/ipfs"
)

// A Head is what is at the end of a seed.
type Head struct {
	Table *Table
	Mount []ipfs.Block // what the layer is mounted by, hashed
}

// ParseHead reads the head of a seed, which begins at off and is all that follows. Whatever it is
// made of, the blocks are what their CIDs say.
func ParseHead(codec *Codec, head []byte, off int64) (*Head, error) {
	if len(head) > MaxHead {
		return nil, fmt.Errorf("head of %d bytes: %w", len(head), ErrTooLarge)
	}
	if off < 0 || len(head) < skipSize+trailerSize || string(head[len(head)-len(trailerMagic):]) != trailerMagic {
		return nil, fmt.Errorf("%w: it does not end with %q", ErrSeed, trailerMagic)
	}
	size := int64(binary.LittleEndian.Uint32(head[len(head)-trailerSize:]))
	begin := int64(len(head)-trailerSize) - size
	if begin < skipSize || binary.LittleEndian.Uint32(head[begin-skipSize:]) != skippableMagic ||
		int64(binary.LittleEndian.Uint32(head[begin-4:])) != size+int64(trailerSize) {
		return nil, fmt.Errorf("%w: the table is in no skippable frame", ErrSeed)
	}
	raw, err := inflateTable(codec, head[begin:begin+size])
	if err != nil {
		return nil, err
	}
	t, err := parseTable(raw, off, off+begin-skipSize)
	if err != nil {
		return nil, err
	}
	last := len(t.Frames) - 1
	data, err := t.Decompress(codec, last, head[:t.Frames[last].Len])
	if err != nil {
		return nil, err
	}
	h := &Head{Table: t}
	for number := int(t.Frames[last].first); number < t.Len(); number++ {
		p := t.place(int32(number))
		codec := uint64(cid.Raw)
		if t.dagPb(number) {
			codec = cid.DagProtobuf
		}
		b, err := ipfs.NewBlock(codec, data[p.From:p.To:p.To])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSeed, err)
		}
		h.Mount = append(h.Mount, b)
	}
	return h, nil
}

// inflateTable decompresses a table, whose frame says how large it is.
func inflateTable(codec *Codec, frame []byte) ([]byte, error) {
	var header zstd.Header
	if err := header.Decode(frame); err != nil {
		return nil, fmt.Errorf("%w: table: %w", ErrSeed, err)
	}
	// Half of a table and more is hashes, which do not compress: what shrinks more than this is made to take memory.
	if !header.HasFCS || header.FrameContentSize > MaxTable || header.FrameContentSize > uint64(4*len(frame)+freeTable) {
		return nil, fmt.Errorf("table of %d bytes: %w", header.FrameContentSize, ErrTooLarge)
	}
	return codec.decompress(frame, int(header.FrameContentSize))
}

// Decompress returns what a frame holds, given its bytes in the seed.
func (t *Table) Decompress(codec *Codec, frame int, data []byte) ([]byte, error) {
	f := t.Frames[frame]
	if len(data) != f.Len {
		return nil, fmt.Errorf("%w: %d bytes of frame %d, which has %d", ErrSeed, len(data), frame, f.Len)
	}
	out, err := codec.decompress(data, f.Size)
	if err != nil {
		return nil, fmt.Errorf("frame %d: %w", frame, err)
	}
	return out, nil
}
