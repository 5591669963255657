package lazyfs_test

import (
	"io"
	"path/filepath"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
	"github.com/hinshun/ipcs/ipfs"
)

func BenchmarkSmallFiles(b *testing.B) { benchmarkFiles(b, 5000, 4000) }
func BenchmarkLargeFile(b *testing.B)  { benchmarkFiles(b, 1, 200<<20) }

// benchmarkFiles reads n files of size bytes through FUSE that are all in the store: what
// the kernel, the relay and this process cost.
func benchmarkFiles(b *testing.B, n, size int) {
	dir := b.TempDir()
	store, err := objects.Open(b.TempDir(), objects.Options{})
	if err != nil {
		b.Fatal(err)
	}
	source := fetchtest.New()
	fetcher := fetch.New(store, source, fetch.Options{Timeout: time.Minute})
	files := &known{files: make(map[cid.Cid]ipfs.File)}
	paths := make([]string, n)
	for i := range n {
		f, leaves := objectstest.NewFile(b, objectstest.Random(int64(i), size))
		files.add(f.Cid, f)
		source.Add(leaves...)
		if err := fetcher.Ensure(b.Context(), f); err != nil {
			b.Fatal(err)
		}
		paths[i] = filepath.Join(dir, objects.Path(f.Cid))
	}
	client, err := relay.Dial(relaytest.Start(b, dir, relaytest.Options{}))
	if err != nil {
		b.Fatal(err)
	}
	server := lazyfs.Serve(client, files, fetcher, lazyfs.Options{})
	relaytest.NoPoll(b, dir)
	b.Cleanup(func() {
		for _, c := range []func() error{server.Unmount, fetcher.Close, store.Close} {
			if err := c(); err != nil {
				b.Error(err)
			}
		}
	})
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
