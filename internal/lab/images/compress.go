package images

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Compression of a layer.
type Compression int

// The compressions that registries hold.
const (
	Gzip Compression = iota
	Zstd
	None
)

// zstdLevel is what zstd's own tool and the builders of images use if nobody asks for
// another.
const zstdLevel = 3

// compressor returns a writer that compresses into w, and the media type of that.
func compressor(c Compression, w io.Writer) (io.WriteCloser, string, error) {
	switch c {
	case Zstd:
		z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(zstdLevel)))
		return z, ocispec.MediaTypeImageLayerZstd, err
	case None:
		return nopCloser{w}, ocispec.MediaTypeImageLayer, nil
	default:
		return pgzip.NewWriter(w), ocispec.MediaTypeImageLayerGzip, nil
	}
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// decompressor returns a reader of the tar in a layer of that media type.
func decompressor(mediaType string, r io.Reader) (io.ReadCloser, error) {
	switch {
	case strings.HasSuffix(mediaType, "zstd"):
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case strings.HasSuffix(mediaType, "gzip"):
		return pgzip.NewReader(r)
	case strings.HasSuffix(mediaType, "tar"):
		return io.NopCloser(r), nil
	}
	return nil, fmt.Errorf("layer of type %s: want a tar, plain or with gzip or zstd", mediaType)
}

// writerFunc writes with a function.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// whileWanted fails once the context is done, so that a long layer can be interrupted.
func whileWanted(ctx context.Context, w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return w.Write(p)
	})
}
