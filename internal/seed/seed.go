// Package seed writes and reads the seeds of spec/seed.md: a blob that holds the blocks of a layer so that
// any node can read them with HTTP range requests, in frames that decompress alone.
//
// Write puts blocks together to frames as they come, compresses these on several cores, and
// writes them in their order; what is needed to mount the layer is the last frame, and behind it
// the table, which says what lies where. So the end of the blob, the head, is all that anybody reads
// first. A Table has the first bytes of each block's digest, 12 bytes of memory for each block, and
// believes nothing: whoever asks for a block verifies what is found.
//
// Functions may be called at the same time, and wait for what they start. A Table is not changed after it was
// read, and may be used by any number of goroutines.
package seed

import (
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/hinshun/ipcs/ipfs"
)

// Limits of the format (spec/seed.md, "Limits").
const (
	// MaxFrame is the most bytes that the blocks of a frame have, but for the mount frame.
	MaxFrame = ipfs.MaxBlock
	// MaxMount is the most bytes that the blocks of the mount frame have. What a layer needs beyond that is
	// in frames like other blocks.
	MaxMount = 16 << 20
	// MaxTable is the most bytes of a table, before compression.
	MaxTable = 64 << 20
	// freeTable is up to how many bytes a table may shrink as it likes.
	freeTable = 4096
	// MaxHead is the most bytes of a head.
	MaxHead = MaxMount + MaxTable
	// MaxBlocks is the most blocks of a seed.
	MaxBlocks = 4 << 20
)

var (
	// ErrSeed says that a seed is malformed.
	ErrSeed = errors.New("malformed seed")
	// ErrTooLarge says that a seed exceeds a limit of the format.
	ErrTooLarge = errors.New("exceeds a limit of the seed format")
)

// A Codec compresses and decompresses frames. It may be used by any number of goroutines.
type Codec struct {
	encoder *zstd.Encoder
	decoder *zstd.Decoder
}

// NewCodec returns a Codec.
func NewCodec() (*Codec, error) {
	// Without a checksum: blocks are hashed. With the size of what is in it, which bounds what is read.
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(MaxFrame), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxTable), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return &Codec{encoder, decoder}, nil
}

func (c *Codec) compress(data []byte) []byte {
	return c.encoder.EncodeAll(data, make([]byte, 0, len(data)/2+64))
}

// decompress returns the size bytes that a frame holds.
func (c *Codec) decompress(frame []byte, size int) ([]byte, error) {
	data, err := c.decoder.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: decompress a frame to %d bytes: %w", ErrSeed, size, err)
	}
	if len(data) != size {
		return nil, fmt.Errorf("%w: a frame decompresses to %d bytes, not %d", ErrSeed, len(data), size)
	}
	return data, nil
}
