package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is the largest zstd window that is read, and the one that is written: what a
// stranger's frame can make us hold besides its output.
const maxWindow = 4 << 20

// newCompressor returns a zstd writer whose output depends on nothing but its input:
// one goroutine, fixed level and window.
func newCompressor(w io.Writer) (*zstd.Encoder, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault),
		zstd.WithWindowSize(maxWindow), zstd.WithEncoderCRC(true))
}

// newDecompressor returns a zstd reader that holds one window and starts no goroutine.
func newDecompressor(r io.Reader) (*zstd.Decoder, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(MaxIndex))
}

// maxRatio bounds what a compressed index may become: real ones shrink to about a
// quarter, since half of an index is hashes. Small ones are not worth the question.
const (
	maxRatio   = 256
	freeInflat = 16 << 20
)

// indexLimit is how large an index of size bytes compressed may be.
func indexLimit(size int64) int64 { return min(int64(MaxIndex), max(freeInflat, size*maxRatio)) }

// An input remembers why it could not be read, to tell that from what a decompressor says
// of what was read.
type input struct {
	r   io.Reader
	err error
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	if err != nil && err != io.EOF {
		i.err = err
	}
	return n, err
}

// inflateIndex decompresses an index of size bytes, in pieces, as decodeIndex takes them:
// what is as large as this is never held twice. What it becomes is held to a limit while it
// is read, whatever the frame says of itself.
func inflateIndex(r io.Reader, size int64) ([]string, error) {
	limit := indexLimit(size)
	in := &input{r: r}
	if size <= smallIndex {
		return inflateSmall(in, size, limit)
	}
	dec, err := newDecompressor(in)
	if err != nil {
		return nil, fmt.Errorf("decompress index: %w", err)
	}
	defer dec.Close()
	pieces, n, err := readPieces(io.LimitReader(dec, limit+1))
	if in.err != nil {
		return nil, fmt.Errorf("read index: %w", in.err)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress index: %w: %w", ErrIndex, err)
	}
	if n > limit {
		return nil, tooInflated(size, limit)
	}
	return pieces, nil
}

func tooInflated(size, limit int64) error {
	return fmt.Errorf("decompress index of %d bytes: %w (%d bytes decompressed)", size, ErrTooLarge, limit)
}

// smallIndex is up to how many bytes a compressed index is decompressed at once. That takes
// no window, which, at 4 MiB for each, is most of the work for an image of many small layers.
const smallIndex = 256 << 10

// inflateSmall is inflateIndex for a small one.
func inflateSmall(in *input, size, limit int64) ([]string, error) {
	frame, err := io.ReadAll(in)
	if err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(uint64(limit)))
	if err != nil {
		return nil, fmt.Errorf("decompress index: %w", err)
	}
	defer dec.Close()
	raw, err := dec.DecodeAll(frame, make([]byte, 0, 4*size)) // what they shrink to
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return nil, tooInflated(size, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress index: %w: %w", ErrIndex, err)
	}
	pieces, _, err := readPieces(bytes.NewReader(raw))
	return pieces, err
}

// indexPiece is the length of the pieces of an index, but for entries that are longer.
const indexPiece = 64 << 10

// readPieces reads an index in pieces, and returns its length. Each piece but the last ends
// where a field does.
func readPieces(r io.Reader) (pieces []string, total int64, err error) {
	buf := make([]byte, 0, indexPiece)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf, total = buf[:len(buf)+n], total+int64(n)
		if err == io.EOF {
			return append(pieces, string(buf)), total, nil
		}
		if err != nil {
			return nil, total, err
		}
		if len(buf) < cap(buf) {
			continue
		}
		piece := string(buf)
		if whole := wholeFields(piece); whole > 0 {
			pieces = append(pieces, piece[:whole])
			buf = append(buf[:0], piece[whole:]...)
		} else {
			buf = append(make([]byte, 0, 2*cap(buf)), buf...)
		}
	}
}
