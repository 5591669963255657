package content_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/content/contenttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// stores are containerd's own, and this one, each as a function that opens it in a new folder. IPCS_BENCH_DIR names where these lie.
func stores(b *testing.B) map[string]func() ctd.Store {
	dir := func() string {
		d, err := os.MkdirTemp(os.Getenv("IPCS_BENCH_DIR"), "content-bench-")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(d) })
		return d
	}
	return map[string]func() ctd.Store{
		"store=containerd": func() ctd.Store {
			s, err := local.NewStore(dir())
			if err != nil {
				b.Fatal(err)
			}
			return s
		},
		"store=ipcs": func() ctd.Store {
			h, err := contenttest.Open(dir(), ipfstest.NewMemory())
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { h.Close() })
			return h
		},
	}
}

// benchBlob is a blob of so many bytes, which are other ones for each n.
func benchBlob(n, size int) ([]byte, ocispec.Descriptor) {
	data := objectstest.Random(int64(n), size)
	return data, ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(size)}
}

// BenchmarkIngest writes blobs as a pull does, in pieces of a MiB.
func BenchmarkIngest(b *testing.B) {
	for _, size := range []int{4 << 10, 1 << 20, 1 << 30} {
		data, desc := benchBlob(1, size)
		for name, open := range stores(b) {
			b.Run(fmt.Sprintf("size=%d/%s", size, name), func(b *testing.B) {
				s := open()
				b.SetBytes(int64(size))
				for n := 0; b.Loop(); n++ {
					w, err := ctd.OpenWriter(b.Context(), s, ctd.WithRef(fmt.Sprint("ref-", n)), ctd.WithDescriptor(desc))
					if err == nil {
						err = ctd.Copy(b.Context(), w, struct{ io.Reader }{bytes.NewReader(data)}, desc.Size, desc.Digest)
					}
					if err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := s.Delete(context.WithoutCancel(b.Context()), desc.Digest); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkRead reads a blob that is in memory, as whoever unpacks it does.
func BenchmarkRead(b *testing.B) {
	const size = 1 << 30
	data, desc := benchBlob(1, size)
	for name, open := range stores(b) {
		b.Run(name, func(b *testing.B) {
			s := open()
			if err := ctd.WriteBlob(b.Context(), s, "ref", bytes.NewReader(data), desc); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			for b.Loop() {
				r, err := s.ReaderAt(b.Context(), desc)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{ctd.NewReader(r)}, make([]byte, 1<<20)); err != nil {
					b.Fatal(err)
				}
				if err := r.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
