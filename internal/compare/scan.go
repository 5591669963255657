package compare

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/ipfs/go-cid"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

const (
	sumSize   = sha256.Size
	chunkSize = 256 << 10 // of blobs, and of files where these are looked at in smaller blocks
)

// A sum is a sha2-256.
type sum [sumSize]byte

// A scan is what is known of a layer.
type scan struct {
	Blob      digest.Digest `json:"blob,omitempty"` // as it is in an ordinary image
	BlobSize  int64         `json:"blobSize"`
	DiffID    digest.Digest `json:"diffID,omitempty"`
	Tar       int64         `json:"tar"`       // bytes; -1 if that is not known
	IndexSize int64         `json:"indexSize"` // bytes of the index file
	root      digest.Digest // of the layer root of an ipcs layer

	index *layer.Encoded
	file  []byte // the index, as it is stored; only until it was written to the cache
	// leaves has, for each leaf of each regular file in the order of the index, its size as peers send it (a varint), and, if it is larger than
	// chunkSize, the sums of its chunks. Empty if nothing of the data was read.
	leaves []byte
	chunks []byte // sums of the chunks of the blob
	read   bool   // the data was read, and leaves and chunks are known
}

// measured is what a leaf takes.
type measured struct {
	wire   uint32
	chunks string // sums of its chunks, if it is larger than one
}

// A meter is an ipfs.Putter that keeps nothing of a layer's blocks but their measures.
type meter struct {
	mu     sync.Mutex
	leaves map[sum]measured
	enc    *zstd.Encoder
}

// newMeter returns a meter. Its encoder may be shared.
func newMeter(enc *zstd.Encoder) *meter { return &meter{leaves: map[sum]measured{}, enc: enc} }

// Put implements ipfs.Putter. It is called from many goroutines at once.
func (m *meter) Put(_ context.Context, blocks ...ipfs.Block) error {
	var buf []byte
	for _, b := range blocks {
		if b.Cid.Type() != cid.Raw {
			continue
		}
		s := sumOf(b.Cid)
		m.mu.Lock()
		_, known := m.leaves[s]
		m.mu.Unlock()
		if known {
			continue
		}
		buf = m.enc.EncodeAll(b.Data, buf[:0])
		one := measured{wire: uint32(min(len(buf), len(b.Data))), chunks: chunksOf(b.Data)}
		m.mu.Lock()
		m.leaves[s] = one
		m.mu.Unlock()
	}
	return nil
}

// chunksOf returns the sums of the chunks of a leaf that is larger than one.
func chunksOf(data []byte) string {
	if len(data) <= chunkSize {
		return ""
	}
	var sums []byte
	for off := 0; off < len(data); off += chunkSize {
		s := sha256.Sum256(data[off:min(off+chunkSize, len(data))])
		sums = append(sums, s[:]...)
	}
	return string(sums)
}

func sumOf(c cid.Cid) (s sum) {
	h := c.Hash()
	copy(s[:], h[len(h)-sumSize:])
	return s
}

// list writes down the measures of all leaves in the order of an index.
func (m *meter) list(index *layer.Encoded) ([]byte, error) {
	var out []byte
	err := index.Each(func(_, _ int, e *layer.Entry) error {
		if !isFile(e) || e.Size == 0 {
			return nil
		}
		return eachLeaf(e, func(s sum, size int64) error {
			one, ok := m.leaves[s]
			if !ok || (one.chunks != "") != (size > chunkSize) {
				return errors.New("a leaf that the index names was not seen")
			}
			out = binary.AppendUvarint(out, uint64(one.wire))
			out = append(out, one.chunks...)
			return nil
		})
	})
	return out, err
}

// isFile says whether an entry has content of its own: hard links have that of another.
func isFile(e *layer.Entry) bool { return e.Mode.IsRegular() && e.Link < 0 && !e.Whiteout }

// eachLeaf calls fn with the leaves of a file.
func eachLeaf(e *layer.Entry, fn func(s sum, size int64) error) error {
	f := e.File()
	for i := range f.NumLeaves() {
		if err := fn(sumOf(f.Leaf(i)), int64(f.LeafLen(i))); err != nil {
			return err
		}
	}
	return nil
}

// A leafReader reads what list wrote.
type leafReader struct{ rest []byte }

var errLeaves = errors.New("measures of leaves are malformed")

func (r *leafReader) next(size int64) (measured, error) {
	wire, n := binary.Uvarint(r.rest)
	if n <= 0 || wire > uint64(size) {
		return measured{}, errLeaves
	}
	r.rest = r.rest[n:]
	one := measured{wire: uint32(wire)}
	if size > chunkSize {
		n := int((size + chunkSize - 1) / chunkSize * sumSize)
		if len(r.rest) < n {
			return measured{}, errLeaves
		}
		one.chunks, r.rest = string(r.rest[:n]), r.rest[n:]
	}
	return one, nil
}

// chunkHasher hashes what is read, chunk by chunk.
type chunkHasher struct {
	io.ReadCloser
	hash   hash.Hash
	filled int
	sums   []byte
}

func (c *chunkHasher) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		piece := rest[:min(len(rest), chunkSize-c.filled)]
		c.hash.Write(piece) // never fails
		if c.filled += len(piece); c.filled == chunkSize {
			c.end()
		}
		rest = rest[len(piece):]
	}
	return n, err
}

// end ends a chunk, if one is begun.
func (c *chunkHasher) end() {
	if c.filled > 0 {
		c.sums = c.hash.Sum(c.sums)
		c.hash.Reset()
		c.filled = 0
	}
}

// A hashedSource is a Source of which one blob is hashed in chunks as it is read.
type hashedSource struct {
	convert.Source
	blob *chunkHasher
}

// Fetch implements convert.Source.
func (s *hashedSource) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := s.Source.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	s.blob = &chunkHasher{ReadCloser: rc, hash: sha256.New()}
	return s.blob, nil
}

// scanIndex reads the index of an ipcs layer.
func scanIndex(ctx context.Context, looker *convert.Looker, node convert.Node, seen convert.LookLayer) (*scan, error) {
	index, size, err := looker.Index(ctx, node, seen)
	if err != nil {
		return nil, err
	}
	return &scan{Blob: seen.Desc.Digest, BlobSize: seen.Desc.Size, DiffID: seen.DiffID, Tar: -1, index: index, IndexSize: size, root: seen.Root}, nil
}

// identity is what two layers have in common that are the same when they are unpacked, or converted.
func (s *scan) identity() digest.Digest {
	if s.DiffID != "" {
		return s.DiffID
	}
	return s.root
}

// scanLayer reads all of an ordinary layer.
func scanLayer(ctx context.Context, looker *convert.Looker, seen convert.LookLayer, enc *zstd.Encoder, read func(int64)) (*scan, error) {
	src := &hashedSource{Source: looker.Source}
	m := newMeter(enc)
	var file bytes.Buffer
	result, err := looker.At(src).Read(ctx, seen, m, &file, read)
	if err != nil {
		return nil, err
	}
	src.blob.end()
	s := &scan{
		Blob: seen.Desc.Digest, BlobSize: seen.Desc.Size, DiffID: seen.DiffID, Tar: result.Bytes, IndexSize: int64(file.Len()),
		file: file.Bytes(), chunks: src.blob.sums, read: true,
	}
	if s.index, err = layer.ReadIndex(s.file); err != nil {
		return nil, err
	}
	if s.leaves, err = m.list(s.index); err != nil {
		return nil, fmt.Errorf("layer %s: %w", seen.Desc.Digest, err)
	}
	return s, nil
}
