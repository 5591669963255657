package fetch_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

// BenchmarkEnsure fetches from a source in memory to disk: one large file, and 12,000
// small ones from several goroutines.
func BenchmarkEnsure(b *testing.B) {
	for _, kind := range []struct{ n, size, workers int }{
		{1, 256 * ipfs.LeafSize, 1},
		{64, 4 * ipfs.LeafSize, 8},
		{12_000, 6_000, 1},
		{12_000, 6_000, 32},
	} {
		b.Run(fmt.Sprintf("files=%d/size=%d/workers=%d", kind.n, kind.size, kind.workers), func(b *testing.B) {
			src := fetchtest.New()
			files := make([]ipfs.File, kind.n)
			for i := range files {
				f, leaves := objectstest.NewFile(b, objectstest.Random(int64(i), kind.size))
				files[i] = f
				src.Add(leaves...)
			}
			b.SetBytes(int64(kind.n) * int64(kind.size))
			for b.Loop() {
				ensureAll(b, src, files, kind.workers)
			}
			b.ReportMetric(float64(kind.n*b.N)/b.Elapsed().Seconds(), "files/s")
		})
	}
}

func ensureAll(b *testing.B, src fetch.Source, files []ipfs.File, workers int) {
	b.StopTimer()
	s, err := objects.Open(b.TempDir(), objects.Options{})
	if err != nil {
		b.Fatal(err)
	}
	f := fetch.New(s, src, fetch.Options{})
	b.StartTimer()
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(files); i += workers {
				if err := f.Ensure(b.Context(), files[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.StartTimer()
}

// BenchmarkRead reads front to back a large file that is not here, in steps of the size
// the kernel uses.
func BenchmarkRead(b *testing.B) {
	file, leaves := objectstest.NewFile(b, objectstest.Random(1, 256*ipfs.LeafSize))
	src := fetchtest.New(leaves...)
	b.SetBytes(file.Size)
	for b.Loop() {
		b.StopTimer()
		f, _ := newFetcher(b, src, 0)
		buf := make([]byte, 128<<10)
		b.StartTimer()
		for off := int64(0); off < file.Size; off += int64(len(buf)) {
			if _, err := f.ReadAt(b.Context(), file, buf, off); err != nil {
				b.Fatal(err)
			}
		}
	}
}
