package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

// syntheticTar has files from empty to a few MiB, 13 KiB each at the median.
func syntheticTar(b *testing.B, size int) []byte {
	b.Helper()
	r := rand.New(rand.NewSource(1))
	body := make([]byte, 4<<20)
	r.Read(body)
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; buf.Len() < size; i++ {
		n := min(int(r.ExpFloat64()*r.ExpFloat64()*20000), len(body)-i%1000)
		h := &tar.Header{Name: fmt.Sprintf("usr/lib/dir%d/file%d", i/50, i), Mode: 0o644, Size: int64(n)}
		if err := w.WriteHeader(h); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Write(body[i%1000:][:n]); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// discard takes blocks and forgets them.
type discard struct{}

func (discard) Put(context.Context, ...ipfs.Block) error { return nil }

// BenchmarkWrite converts a tar; compare it with BenchmarkSHA256, which is what any way
// to take in a layer has to do at least.
func BenchmarkWrite(b *testing.B) {
	tarball := syntheticTar(b, 256<<20)
	b.SetBytes(int64(len(tarball)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Write(context.Background(), discard{}, bytes.NewReader(tarball), WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSHA256(b *testing.B) {
	tarball := syntheticTar(b, 256<<20)
	b.SetBytes(int64(len(tarball)))
	for b.Loop() {
		h := sha256.New()
		if _, err := io.Copy(h, bytes.NewReader(tarball)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMerge merges 500,000 entries with a layer that changes a tenth of them.
func BenchmarkMerge(b *testing.B) {
	lower := syntheticIndex(500_000)
	upper := &Index{Entries: []Entry{root()}}
	for i := 1; i < len(lower.Entries); i++ {
		if i/50%10 == 0 {
			e := lower.Entries[i]
			if e.Parent > 0 {
				e.Parent = int32(len(upper.Entries) - 1 - (i-2)%50)
			}
			upper.Entries = append(upper.Entries, e)
		}
	}
	layers := encodedOf(b, lower, upper)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Merge(layers, true); err != nil {
			b.Fatal(err)
		}
	}
}
