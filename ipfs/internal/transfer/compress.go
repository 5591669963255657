package transfer

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"
)

// worthKeeping says whether a compressed form is worth its place on the disk: it saves a fifth.
func worthKeeping(compressed, size int) bool { return compressed <= size-size/5 }

// A Codec compresses and decompresses frames. It may be used by any number of goroutines; it
// holds the memory of as many encoders and decoders as have worked at once.
type Codec struct {
	fast, thorough *zstd.Encoder
	decoder        *zstd.Decoder
}

// NewCodec returns a Codec.
func NewCodec() (*Codec, error) {
	fast, err := newEncoder(zstd.SpeedFastest)
	if err != nil {
		return nil, err
	}
	thorough, err := newEncoder(zstd.SpeedBetterCompression)
	if err != nil {
		return nil, err
	}
	// What comes is held to the room that was made for it, whatever the frame says of itself.
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(maxFrame), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd decoder: %w", err)
	}
	return &Codec{fast: fast, thorough: thorough, decoder: decoder}, nil
}

// newEncoder returns an encoder for frames of at most maxFrame bytes. There is no checksum:
// the blocks are hashed.
func newEncoder(level zstd.EncoderLevel) (*zstd.Encoder, error) {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(maxFrame), zstd.WithSingleSegment(true), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return e, nil
}

// Compress returns data as a zstd frame that is worth to be kept, or nil if there is none.
func (c *Codec) Compress(data []byte) []byte {
	if frame := c.thorough.EncodeAll(data, nil); worthKeeping(len(frame), len(data)) {
		return clipped(frame)
	}
	return nil
}

// clipped returns a frame without the buffer that it was made in if that is much larger: a frame
// waits to be written, and is counted as what it is.
func clipped(frame []byte) []byte {
	if cap(frame)-len(frame) >= len(frame)/4 {
		return bytes.Clone(frame)
	}
	return frame
}

// decompress returns the size bytes that a zstd frame holds.
func (c *Codec) decompress(frame []byte, size int) ([]byte, error) {
	data, err := c.decoder.DecodeAll(frame, make([]byte, 0, size))
	if err != nil {
		return nil, fmt.Errorf("%w: decompress a frame to %d bytes: %w", ErrProtocol, size, err)
	}
	if len(data) != size {
		return nil, fmt.Errorf("%w: a frame decompresses to %d bytes, not %d", ErrProtocol, len(data), size)
	}
	return data, nil
}
