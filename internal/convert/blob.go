package convert

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrCorrupt says that content of the source is not what its digest promises.
var ErrCorrupt = errors.New("corrupt content")

// A verifier reads a blob and hashes it. Where the blob ends it returns ErrCorrupt,
// wrapped, unless size and digest are those of the descriptor. It never returns more
// bytes than the descriptor promises.
type verifier struct {
	r      io.Reader
	want   ocispec.Descriptor
	hash   hash.Hash
	n      int64
	report func(n int64)
}

func newVerifier(r io.Reader, want ocispec.Descriptor, report func(n int64)) (*verifier, error) {
	if err := want.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", want.Digest, err)
	}
	return &verifier{r: r, want: want, hash: want.Digest.Algorithm().Hash(), report: report}, nil
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.n == v.want.Size {
		return 0, v.end()
	}
	if left := v.want.Size - v.n; int64(len(p)) > left {
		p = p[:left]
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	v.hash.Write(p[:n])
	v.report(int64(n))
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
		if v.n < v.want.Size {
			err = fmt.Errorf("%w: it ends after %d of %d bytes", ErrCorrupt, v.n, v.want.Size)
		}
	}
	return n, err
}

// end checks that the blob ends here and has the right digest.
func (v *verifier) end() error {
	var more [1]byte
	if n, err := io.ReadFull(v.r, more[:]); n > 0 {
		return fmt.Errorf("%w: it is longer than the %d bytes the manifest says", ErrCorrupt, v.want.Size)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if got := digest.NewDigest(v.want.Digest.Algorithm(), v.hash); got != v.want.Digest {
		return fmt.Errorf("%w: its digest is %s", ErrCorrupt, got)
	}
	return io.EOF
}

// A summer counts and hashes what goes through it to w.
type summer struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

func newSummer(w io.Writer) *summer { return &summer{w: w, hash: digest.Canonical.Hash()} }

func (s *summer) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.hash.Write(p[:n])
	s.size += int64(n)
	return n, err
}

func (s *summer) digest() digest.Digest { return digest.NewDigest(digest.Canonical, s.hash) }

// Parameters of decompression, for each layer under way.
const (
	gzipBlock   = 1 << 20 // bytes decompressed ahead in one piece
	gzipBlocks  = 4       // pieces ahead of the reader
	zstdWindow  = 128 << 20
	readAhead   = 256 << 10 // bytes read from the source at once
	magicLength = 4
)

// decompress returns the tar in a blob. What it is compressed with is told from its
// first bytes and not from its media type, which is often wrong and never matters:
// the diffID says what must come out.
func decompress(blob io.Reader) (io.ReadCloser, error) {
	r := bufio.NewReaderSize(blob, readAhead)
	magic, err := r.Peek(magicLength)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := pgzip.NewReaderN(r, gzipBlock, gzipBlocks)
		if err != nil {
			return nil, corruptStream("gzip", err)
		}
		return &stream{Reader: z, name: "gzip", close: z.Close}, nil
	case isZstd(magic):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			return nil, corruptStream("zstd", err)
		}
		return &stream{Reader: z, name: "zstd", close: func() error { z.Close(); return nil }}, nil
	default:
		return io.NopCloser(r), nil
	}
}

// Compressions of the layers that Restore writes.
const (
	None = ""
	Gzip = "gzip"
	Zstd = "zstd"
)

// compress returns a writer that compresses to w. Closing it leaves w open.
func compress(w io.Writer, compression string) (io.WriteCloser, error) {
	switch compression {
	case None:
		return nopCloser{w}, nil
	case Gzip:
		return pgzip.NewWriter(w), nil
	case Zstd:
		return zstd.NewWriter(w)
	}
	return nil, fmt.Errorf("compression %q is not known", compression)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// tarType is the media type of a tar with this compression.
func tarType(compression string, docker bool) string {
	switch {
	case compression == Gzip && docker:
		return images.MediaTypeDockerSchema2LayerGzip
	case compression == Gzip:
		return ocispec.MediaTypeImageLayerGzip
	case compression == Zstd && docker:
		return images.MediaTypeDockerSchema2LayerZstd
	case compression == Zstd:
		return ocispec.MediaTypeImageLayerZstd
	case docker:
		return images.MediaTypeDockerSchema2Layer
	}
	return ocispec.MediaTypeImageLayer
}

func isDocker(mediaType string) bool { return strings.HasPrefix(mediaType, "application/vnd.docker.") }

// isZstd reports whether a blob starts with a zstd frame or a skippable one.
func isZstd(magic []byte) bool {
	if len(magic) < magicLength {
		return false
	}
	frame := bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd})
	skippable := magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18})
	return frame || skippable
}

// A stream is a decompressor whose errors say which it was.
type stream struct {
	io.Reader
	name  string
	close func() error
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = corruptStream(s.name, err)
	}
	return n, err
}

func (s *stream) Close() error { return s.close() }

// corruptStream turns an error of a decompressor into ErrCorrupt, but lets those pass
// that come from below it.
func corruptStream(name string, err error) error {
	if errors.Is(err, ErrCorrupt) || errors.Is(err, errRead) {
		return err
	}
	return fmt.Errorf("%w: its %s stream is broken: %w", ErrCorrupt, name, err)
}

// errRead marks errors of reading the source, to tell them from those of decompressing
// what was read.
var errRead = errors.New("read from the source")

// A sourceReader marks the errors of a source.
type sourceReader struct{ r io.Reader }

func (s sourceReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w: %w", errRead, err)
	}
	return n, err
}

// fetchVerified reads small content whole. What names it in errors.
func fetchVerified(ctx context.Context, src Source, desc ocispec.Descriptor, what string, limit int64) ([]byte, error) {
	if desc.Size < 0 || desc.Size > limit {
		return nil, fmt.Errorf("%s %s: its size is %d bytes, more than the %d allowed", what, desc.Digest, desc.Size, limit)
	}
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, desc.Digest, err)
	}
	defer rc.Close()
	v, err := newVerifier(rc, desc, func(int64) {})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	data, err := io.ReadAll(v)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, desc.Digest, err)
	}
	return data, nil
}
