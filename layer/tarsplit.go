package layer

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
)

// A tar-split (spec/layer.md, "tar-split") is what is needed besides the contents of files
// to give back a tar: a zstd stream of records. Segments of raw bytes and payloads, in the
// order of the tar, then a table that says where the payloads are.
const (
	splitEnd     = 0 // then: number of payloads, and one place each
	splitRaw     = 1 // then: length, and as many bytes
	splitPayload = 2 // then: size of the content of a file
)

// splitMagic starts a tar-split, decompressed.
const splitMagic = "ipcs tar-split 1\n"

// maxSegment is the length of a raw segment: longer runs are several. All but the last of
// a run have this length.
const maxSegment = 64 << 10

// A splitWriter writes a tar-split.
type splitWriter struct {
	zip      *zstd.Encoder
	raw      []byte
	payloads int
}

func newSplitWriter(w io.Writer) (*splitWriter, error) {
	zip, err := newCompressor(w)
	if err != nil {
		return nil, err
	}
	s := &splitWriter{zip: zip, raw: make([]byte, 0, maxSegment)}
	_, err = zip.Write([]byte(splitMagic))
	return s, err
}

// Write records raw bytes.
func (s *splitWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		part := b[:min(len(b), maxSegment-len(s.raw))]
		s.raw = append(s.raw, part...)
		b = b[len(part):]
		if len(s.raw) == maxSegment {
			if err := s.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (s *splitWriter) flush() error {
	if len(s.raw) == 0 {
		return nil
	}
	if err := s.varints(splitRaw, uint64(len(s.raw))); err != nil {
		return err
	}
	_, err := s.zip.Write(s.raw)
	s.raw = s.raw[:0]
	return err
}

// payload records that the content of a file stands here.
func (s *splitWriter) payload(size int64) error {
	if s.payloads++; s.payloads > MaxPayloads {
		return fmt.Errorf("tar-split: %w (%d payloads)", ErrTooLarge, MaxPayloads)
	}
	if err := s.flush(); err != nil {
		return err
	}
	return s.varints(splitPayload, uint64(size))
}

// close writes the table: for each payload the number of its entry in the index, or -1 for
// the next file of shadowed.
func (s *splitWriter) close(places []int32) error {
	if err := s.flush(); err != nil {
		return err
	}
	if err := s.varints(splitEnd, uint64(len(places))); err != nil {
		return err
	}
	last := int32(0)
	for _, p := range places {
		v := uint64(0)
		if p >= 0 {
			v = 1 + protowire.EncodeZigZag(int64(p)-int64(last))
			last = p
		}
		if err := s.varints(v); err != nil {
			return err
		}
	}
	return s.zip.Close()
}

func (s *splitWriter) varints(vs ...uint64) error {
	var b []byte
	for _, v := range vs {
		b = protowire.AppendVarint(b, v)
	}
	_, err := s.zip.Write(b)
	return err
}

// A splitReader reads a tar-split record by record.
type splitReader struct {
	in  *input
	zip *zstd.Decoder
	r   *bufio.Reader
}

func newSplitReader(r io.Reader) (*splitReader, error) {
	in := &input{r: r}
	zip, err := newDecompressor(in)
	if err != nil {
		return nil, fmt.Errorf("tar-split: %w", err)
	}
	s := &splitReader{in: in, zip: zip, r: bufio.NewReaderSize(zip, maxSegment)}
	magic := make([]byte, len(splitMagic))
	if _, err := io.ReadFull(s.r, magic); err != nil || string(magic) != splitMagic {
		zip.Close()
		return nil, s.failed("its start is not that of a tar-split", err)
	}
	return s, nil
}

func (s *splitReader) close() { s.zip.Close() }

// A record is one of a tar-split: raw bytes or, if raw is empty, the size of a payload.
type record struct {
	raw  []byte
	size int64
}

// next returns the next record, or io.EOF where the table starts.
func (s *splitReader) next() (record, error) {
	kind, err := s.r.ReadByte()
	if err != nil {
		return record{}, s.failed("record", err)
	}
	if kind == splitEnd {
		return record{}, io.EOF
	}
	n, err := binary.ReadUvarint(s.r)
	if err != nil {
		return record{}, s.failed("record", err)
	}
	switch {
	case kind == splitRaw && n > 0 && n <= maxSegment:
		rec := record{raw: make([]byte, n)}
		if _, err := io.ReadFull(s.r, rec.raw); err != nil {
			return record{}, s.failed("raw segment", err)
		}
		return rec, nil
	case kind == splitPayload && n > 0 && n <= MaxFile:
		return record{size: int64(n)}, nil
	}
	return record{}, s.failed(fmt.Sprintf("record of kind %d, length %d", kind, n), nil)
}

// table reads the table, for an index of so many entries, to the end of the stream.
func (s *splitReader) table(payloads, entries int) ([]int32, error) {
	n, err := binary.ReadUvarint(s.r)
	if err != nil || n != uint64(payloads) {
		return nil, s.failed("table is not as long as there are payloads", err)
	}
	places := make([]int32, payloads)
	last := int64(0)
	for i := range places {
		v, err := binary.ReadUvarint(s.r)
		if err != nil {
			return nil, s.failed("table", err)
		}
		if v == 0 {
			places[i] = -1
			continue
		}
		last += protowire.DecodeZigZag(v - 1)
		if last < 0 || last >= int64(entries) {
			return nil, s.failed(fmt.Sprintf("payload %d is in entry %d", i, last), nil)
		}
		places[i] = int32(last)
	}
	if _, err := s.r.ReadByte(); err != io.EOF {
		return nil, s.failed("something follows the table", err)
	}
	return places, nil
}

func splitError(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrTarSplit, what, err)
	}
	return fmt.Errorf("%w: %s", ErrTarSplit, what)
}

// failed is splitError, unless it is reading that failed.
func (s *splitReader) failed(what string, err error) error {
	if s.in.err != nil {
		return fmt.Errorf("read tar-split: %w", s.in.err)
	}
	return splitError(what, err)
}
