package lazyfs_test

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/objects/objectstest"
)

func BenchmarkSmallFiles(b *testing.B) { benchmarkFiles(b, 5000, 4000) }
func BenchmarkLargeFile(b *testing.B)  { benchmarkFiles(b, 1, 200<<20) }

// benchmarkFiles reads n files of size bytes through FUSE that are all in the store: what
// the kernel, the relay and this process cost.
func benchmarkFiles(b *testing.B, n, size int) {
	fx := mount(b, b.TempDir(), time.Minute)
	paths := make([]string, n)
	for i := range n {
		f, path := fx.add(b, objectstest.Random(int64(i), size))
		if err := fx.fetcher.Ensure(b.Context(), f); err != nil {
			b.Fatal(err)
		}
		paths[i] = path
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(size) * int64(n))
	for b.Loop() {
		for _, path := range paths {
			if err := readUncached(path, buf); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// readUncached reads a file, and makes the kernel forget what it has read.
func readUncached(path string, buf []byte) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for n := 1; n > 0 && err == nil; {
		n, err = unix.Read(fd, buf)
	}
	if err == nil || err == io.EOF {
		err = unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}
