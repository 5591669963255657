package transfer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// maxFrame bounds the bytes of the blocks in a frame: that of the largest block.
	maxFrame = ipfs.MaxBlock
	// maxAnswers bounds the wants that one frame answers.
	maxAnswers = 1024
)

// kind is what a frame holds.
type kind byte

const (
	frameAbsent kind = 0 // numbers of wants whose blocks are not here, or that were cancelled
	frameHere   kind = 1 // numbers of wants whose blocks are here
	frameRaw    kind = 2 // blocks, one after the other
	frameZstd   kind = 3 // the same as one zstd frame
)

// part is the answer to one want, in a frame.
type part struct {
	id   uint64
	size int  // of the block, in frames that hold blocks
	more bool // one more answer is to come
}

// header is a frame without its payload.
type header struct {
	kind    kind
	parts   []part
	size    int // of all blocks
	payload int // bytes that follow
}

// appendHeader encodes a header.
func appendHeader(b []byte, h header) []byte {
	b = append(b, byte(h.kind))
	b = binary.AppendUvarint(b, uint64(len(h.parts)))
	for _, p := range h.parts {
		b = binary.AppendUvarint(b, p.id)
		if h.kind == frameRaw || h.kind == frameZstd {
			b = binary.AppendUvarint(b, uint64(p.size))
		}
	}
	if h.kind == frameZstd {
		b = binary.AppendUvarint(b, uint64(h.payload))
	}
	return b
}

// readHeader reads a header, and holds it to the limits. The error is io.EOF when the stream
// ended before one.
func readHeader(r *bufio.Reader) (header, error) {
	b, err := r.ReadByte()
	if err != nil {
		return header{}, err
	}
	h := header{kind: kind(b)}
	if h.kind > frameZstd {
		return h, fmt.Errorf("%w: frame of kind %d", ErrProtocol, b)
	}
	n, err := readUvarint(r)
	if err != nil {
		return h, fmt.Errorf("read frame: %w", noEOF(err))
	}
	if n == 0 || n > maxAnswers {
		return h, fmt.Errorf("%w: a frame of %d answers, 1 to %d are allowed", ErrProtocol, n, maxAnswers)
	}
	h.parts = make([]part, n)
	for i := range h.parts {
		if h.parts[i], err = readPart(r, h.kind); err != nil {
			return h, err
		}
		if h.size += h.parts[i].size; h.size > maxFrame {
			return h, fmt.Errorf("%w: a frame of more than %d bytes of blocks", ErrProtocol, maxFrame)
		}
	}
	return h, readPayloadSize(r, &h)
}

func readPart(r *bufio.Reader, k kind) (p part, err error) {
	if p.id, err = readUvarint(r); err == nil && (k == frameRaw || k == frameZstd) {
		var size uint64
		size, err = readUvarint(r)
		p.size = int(min(size, maxFrame+1))
	}
	if err != nil {
		return p, fmt.Errorf("read frame: %w", noEOF(err))
	}
	return p, nil
}

func readPayloadSize(r *bufio.Reader, h *header) error {
	if h.kind != frameZstd {
		h.payload = h.size
		return nil
	}
	size, err := readUvarint(r)
	if err != nil {
		return fmt.Errorf("read frame: %w", noEOF(err))
	}
	if size == 0 || size >= uint64(h.size) {
		return fmt.Errorf("%w: %d bytes of blocks compressed to %d", ErrProtocol, h.size, size)
	}
	h.payload = int(size)
	return nil
}

// readBlocks reads the payload of a frame that holds blocks, and returns their bytes, one
// after the other.
func readBlocks(r *bufio.Reader, h header, codec *Codec) ([]byte, error) {
	data := make([]byte, h.payload)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read frame: %w", noEOF(err))
	}
	if h.kind == frameRaw {
		return data, nil
	}
	return codec.decompress(data, h.size)
}
