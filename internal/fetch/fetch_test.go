package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/fetch/fetchtest"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
)

func openStore(t testing.TB, dir string) *objects.Store {
	t.Helper()
	s, err := objects.Open(dir, objects.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newFetcher(t testing.TB, src fetch.Source, timeout time.Duration) (*fetch.Fetcher, *objects.Store) {
	t.Helper()
	return newFetcherWith(t, src, fetch.Options{Timeout: timeout})
}

func newFetcherWith(t testing.TB, src fetch.Source, opts fetch.Options) (*fetch.Fetcher, *objects.Store) {
	t.Helper()
	s := openStore(t, t.TempDir())
	f := fetch.New(s, src, opts)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f, s
}

func readAll(t testing.TB, f *fetch.Fetcher, file ipfs.File, step int) []byte {
	t.Helper()
	b, err := io.ReadAll(&reader{f: f, ctx: t.Context(), file: file, step: step})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// reader reads a file front to back in steps.
type reader struct {
	f    *fetch.Fetcher
	ctx  context.Context
	file ipfs.File
	off  int64
	step int
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.f.ReadAt(r.ctx, r.file, p[:min(len(p), r.step)], r.off)
	r.off += int64(n)
	return n, err
}

func TestReadFetchesOnce(t *testing.T) {
	for _, size := range []int{0, 1, 5000, ipfs.LeafSize, ipfs.LeafSize + 1, 8 * ipfs.LeafSize, 20*ipfs.LeafSize + 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := objectstest.Random(int64(size), size)
			file, leaves := objectstest.NewFile(t, data)
			src := fetchtest.New(leaves...)
			f, s := newFetcher(t, src, time.Minute)
			var wg sync.WaitGroup
			for w := range 4 {
				wg.Go(func() {
					if got := readAll(t, f, file, 200_000*(w+1)); !bytes.Equal(got, data) {
						t.Errorf("read %d bytes that differ", len(got))
					}
				})
			}
			wg.Wait()
			if err := f.Ensure(t.Context(), file); err != nil {
				t.Fatal(err)
			}
			if blocks, times, _ := src.Totals(); times != blocks || (size > 0 && blocks != len(leaves)) {
				t.Errorf("%d leaves of %d were asked for, %d times", blocks, len(leaves), times)
			}
			if !s.HasFile(file) || (size > 0 && f.Stats().Bytes != file.Size) || f.Stats().Files != 1 {
				t.Errorf("HasFile = %v, Stats() = %+v", s.HasFile(file), f.Stats())
			}
			if got := readAll(t, f, file, 1<<20); !bytes.Equal(got, data) {
				t.Error("read from the object differs")
			}
		})
	}
}

func TestRandomReadsAndSharedLeaves(t *testing.T) {
	data := objectstest.Random(1, 20*ipfs.LeafSize)
	copy(data[5*ipfs.LeafSize:], data[:ipfs.LeafSize]) // the same leaf twice
	clear(data[8*ipfs.LeafSize : 11*ipfs.LeafSize])    // three of a hole
	other := append(bytes.Clone(data[:9*ipfs.LeafSize]), "another end"...)
	a, aLeaves := objectstest.NewFile(t, data)
	b, bLeaves := objectstest.NewFile(t, other)
	src := fetchtest.New(append(aLeaves, bLeaves...)...)
	f, _ := newFetcher(t, src, time.Minute)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewSource(int64(w)))
			for range 60 {
				file, want := a, data
				if rnd.Intn(2) == 0 {
					file, want = b, other
				}
				off, buf := rnd.Int63n(file.Size), make([]byte, rnd.Intn(3*ipfs.LeafSize))
				n, err := f.ReadAt(t.Context(), file, buf, off)
				if err != nil && err != io.EOF {
					t.Error(err)
					return
				}
				if !bytes.Equal(buf[:n], want[off:off+int64(n)]) || (err == nil && n != len(buf)) {
					t.Errorf("read %d bytes at %d: differs", n, off)
				}
			}
		})
	}
	wg.Wait()
	if blocks, times, _ := src.Totals(); times != blocks || blocks > 19 {
		t.Errorf("%d different leaves were asked for %d times", blocks, times)
	}
}

func TestReadAhead(t *testing.T) {
	file, leaves := objectstest.NewFile(t, objectstest.Random(1, 40*ipfs.LeafSize))
	src := fetchtest.New(leaves...)
	f, _ := newFetcher(t, src, time.Minute)
	buf := make([]byte, 10)
	for _, leaf := range []int64{30, 20, 10} { // jumps read nothing ahead
		if _, err := f.ReadAt(t.Context(), file, buf, leaf*ipfs.LeafSize); err != nil {
			t.Fatal(err)
		}
	}
	if _, times, _ := src.Totals(); times != 3 {
		t.Fatalf("%d leaves fetched for three reads far apart", times)
	}
	came := make(chan struct{})
	src.SetHook(func(_ context.Context, c cid.Cid) error {
		if c == leaves[5].Cid {
			close(came)
		}
		return nil
	})
	for leaf := range int64(3) {
		if _, err := f.ReadAt(t.Context(), file, buf, leaf*ipfs.LeafSize); err != nil {
			t.Fatal(err)
		}
	}
	<-came // though nobody read it
	if n := src.Asked(leaves[15].Cid); n != 0 {
		t.Errorf("leaf 15 was asked for %d times after three reads", n)
	}
}

func TestSmallFileComesWhole(t *testing.T) {
	file, leaves := objectstest.NewFile(t, objectstest.Random(1, 8*ipfs.LeafSize))
	src := fetchtest.New(leaves...)
	var asked atomic.Int32
	done := make(chan struct{})
	src.SetHook(func(context.Context, cid.Cid) error {
		if int(asked.Add(1)) == len(leaves) {
			close(done)
		}
		return nil
	})
	f, _ := newFetcher(t, src, time.Minute)
	if _, err := f.ReadAt(t.Context(), file, make([]byte, 1), 5*ipfs.LeafSize); err != nil {
		t.Fatal(err)
	}
	<-done
	if err := f.Ensure(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	if got := f.Stats(); got.Files != 1 || got.Bytes != file.Size {
		t.Errorf("Stats() = %+v", got)
	}
}

func TestNothingIsFetchedThatIsHere(t *testing.T) {
	src := fetchtest.New()
	f, s := newFetcher(t, src, time.Minute)
	data := objectstest.Random(1, 12*ipfs.LeafSize+9)
	file, leaves := objectstest.NewFile(t, data)
	if err := s.Put(t.Context(), leaves...); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readAll(t, f, file, 1<<20), data) {
		t.Fatal("read differs")
	}
	if err := f.Ensure(t.Context(), file); err != nil {
		t.Fatal(err)
	}
	tail, _ := objectstest.NewFile(t, data[12*ipfs.LeafSize:]) // a leaf within that file, as a file
	if got := readAll(t, f, tail, 100); !bytes.Equal(got, data[12*ipfs.LeafSize:]) {
		t.Fatal("read of a leaf as a file differs")
	}
	if _, times, _ := src.Totals(); times != 0 || f.Stats().LocalBytes == 0 {
		t.Errorf("the source was asked %d times; Stats() = %+v", times, f.Stats())
	}
}

func TestHostileClaims(t *testing.T) {
	data := objectstest.Random(1, 5000)
	file, leaves := objectstest.NewFile(t, data)
	source := fetchtest.New(leaves...)
	f, s := newFetcher(t, source, time.Minute)
	for _, size := range []int64{1, 4999, 5001, ipfs.LeafSize} {
		lie := ipfs.File{Cid: file.Cid, Size: size}
		if _, err := f.ReadAt(t.Context(), lie, make([]byte, 1), 0); !errors.Is(err, ipfs.ErrFile) {
			t.Errorf("read of a file that claims %d bytes: %v", size, err)
		}
	}
	if !bytes.Equal(readAll(t, f, file, 1000), data) {
		t.Fatal("a false claim spoiled the file")
	}
	if n := source.Asked(file.Cid); n != 1 {
		t.Errorf("the content was fetched %d times, for false claims of its size", n)
	}
	lie := ipfs.File{Cid: file.Cid, Size: 1}
	if _, err := f.ReadAt(t.Context(), lie, make([]byte, 1), 0); !errors.Is(err, ipfs.ErrFile) || !s.HasFile(file) {
		t.Errorf("read of a file that is here and claims another size: %v; still here: %v", err, s.HasFile(file))
	}
	if freed, err := s.Free(t.Context(), []cid.Cid{file.Cid}, time.Now()); freed == 0 || err != nil || s.HasFile(file) {
		t.Errorf("freed %d bytes (%v); still here: %v", freed, err, s.HasFile(file))
	}
	big, _ := objectstest.NewFile(t, objectstest.Random(2, 2*ipfs.LeafSize))
	other, _ := objectstest.NewFile(t, objectstest.Random(3, 2*ipfs.LeafSize))
	other.Cid = big.Cid
	if _, err := f.ReadAt(t.Context(), other, make([]byte, 1), 0); !errors.Is(err, ipfs.ErrFile) {
		t.Errorf("read of a file under the name of another: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	dir := hosttest.Disk(t, "12m")
	s := openStore(t, filepath.Join(dir, "store"))
	data := objectstest.Random(1, 3*ipfs.LeafSize)
	file, leaves := objectstest.NewFile(t, data)
	f := fetch.New(s, fetchtest.New(leaves...), fetch.Options{})
	defer f.Close()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 20<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	for range 2 {
		if _, err := f.ReadAt(t.Context(), file, make([]byte, 10), ipfs.LeafSize); !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
			t.Fatalf("read on a full disk: %v", err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readAll(t, f, file, 1<<20), data) {
		t.Fatal("read differs")
	}
	if err := f.Ensure(t.Context(), file); err != nil {
		t.Fatal(err)
	}
}
