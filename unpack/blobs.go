//go:build linux

package unpack

import (
	"bufio"
	"context"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// readAhead is how much of an ordinary layer one request to containerd asks for: what
// unpacks it reads 32 KiB at a time, and a request costs more than that.
const readAhead = 1 << 20

// blobs reads ordinary layers from containerd's content store in large pieces.
type blobs struct{ content.Provider }

func (b blobs) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	r, err := b.Provider.ReaderAt(ctx, desc)
	if err != nil {
		return nil, err
	}
	return blob{r}, nil
}

// A blob has a reader of its own, which content.NewReader prefers.
type blob struct{ content.ReaderAt }

func (b blob) Reader() io.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(b.ReaderAt, 0, b.Size()), readAhead)
}
