package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

// What follows the magic number of a zstd frame (RFC 8878, section 3.1.1.1): a byte of
// flags, then here a window.
const (
	singleSegment = 2<<6 | 1<<5 // and four bytes of content size, instead of a window
	window4M      = 12 << 3
	window8M      = 13 << 3
	zstdMost      = 128 << 10 // bytes of a block
)

// A zstdBlock is a block that is not compressed: bytes, or one of them many times.
type zstdBlock struct {
	data   []byte
	repeat int // of data[0], if not 0
}

// zstdFrame writes a frame that no compressor has to make.
func zstdFrame(header []byte, blocks ...zstdBlock) []byte {
	out := append([]byte{0x28, 0xb5, 0x2f, 0xfd}, header...)
	for i, b := range blocks {
		last, kind, size := uint32(0), uint32(0), len(b.data)
		if i == len(blocks)-1 {
			last = 1
		}
		if b.repeat > 0 {
			kind, size = 1, b.repeat
		}
		out = append(out, binary.LittleEndian.AppendUint32(nil, last|kind<<1|uint32(size)<<3)[:3]...)
		out = append(out, b.data...)
	}
	return out
}

// leavesIndex is an index of one file with so many leaves that their digests fill blocks of
// the largest size. All digests are equal, so that the frame is small; the index is right.
func leavesIndex(t *testing.T, blocks int) (before []byte, frame []zstdBlock) {
	t.Helper()
	leaves := strings.Repeat("l", blocks*zstdMost)
	size := int64(len(leaves)/sumSize) * ipfs.LeafSize
	c, err := ipfs.BuildFile(size, leaves, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := EncodeIndex(&Index{Entries: []Entry{root(), {Name: "a", Link: -1, Mode: 0o644, Size: size, Digest: sumOf(c), Extra: &Extra{Leaves: leaves}}}})
	if err != nil {
		t.Fatal(err)
	}
	before = raw[:len(raw)-len(leaves)]
	frame = []zstdBlock{{data: before}}
	for range blocks {
		frame = append(frame, zstdBlock{[]byte("l"), zstdMost})
	}
	return before, frame
}

// TestFrames reads the frames that the specification allows, and no other.
func TestFrames(t *testing.T) {
	raw, err := EncodeIndex(&Index{Entries: []Entry{root()}})
	if err != nil {
		t.Fatal(err)
	}
	plain := zstdFrame([]byte{0, window4M}, zstdBlock{data: raw})
	before, large := leavesIndex(t, 40)
	single := func(size int) []byte { return binary.LittleEndian.AppendUint32([]byte{singleSegment}, uint32(size)) }
	_, huge := leavesIndex(t, 136)
	for name, tc := range map[string]struct {
		frame []byte
		want  error
	}{
		"window of 4 MiB":       {plain, nil},
		"window of 8 MiB":       {zstdFrame([]byte{0, window8M}, zstdBlock{data: raw}), ErrIndex},
		"dictionary":            {zstdFrame([]byte{1, window4M, 7}, zstdBlock{data: raw}), ErrIndex},
		"single segment":        {zstdFrame(single(len(raw)), zstdBlock{data: raw}), nil},
		"large single segment":  {zstdFrame(single(len(before)+40*zstdMost), large...), ErrIndex},
		"5 MiB":                 {zstdFrame([]byte{0, window4M}, large...), nil},
		"17 MiB":                {zstdFrame([]byte{0, window4M}, huge...), ErrTooLarge},
		"a byte after":          {append(bytes.Clone(plain), 0), ErrIndex},
		"zeros after":           {append(bytes.Clone(plain), make([]byte, 100)...), ErrIndex},
		"cut off":               {plain[:len(plain)-1], ErrIndex},
		"no frame":              {raw, ErrIndex},
		"a size that is not so": {zstdFrame(single(len(raw)+1), zstdBlock{data: raw}), ErrIndex},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := inflateIndex(bytes.NewReader(tc.frame), int64(len(tc.frame)))
			if !errors.Is(err, tc.want) {
				t.Fatalf("%d bytes, %v; want %v", len(s), err, tc.want)
			}
			if err == nil {
				_, err = decodeIndex(s)
			}
			if tc.want == nil && err != nil {
				t.Error(err)
			}
		})
	}
}
