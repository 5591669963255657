package content_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/content/contenttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestRandomAccess reads one blob from many goroutines at once, through one reader and through many.
func TestRandomAccess(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	data := objectstest.Random(1, 3<<20+5)
	d := ingest(t, h, data)
	r, err := h.ReaderAt(t.Context(), ocispec.Descriptor{Digest: d})
	if err != nil || r.Size() != int64(len(data)) {
		t.Fatal(err)
	}
	defer r.Close()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(i), 0))
			for range 200 {
				off, p := rnd.Int64N(int64(len(data))), make([]byte, rnd.IntN(100_000))
				n, err := r.ReadAt(p, off)
				if want := data[off:min(int64(len(data)), off+int64(len(p)))]; !bytes.Equal(p[:n], want) || (n < len(p)) != errors.Is(err, io.EOF) {
					t.Errorf("ReadAt of %d bytes at %d: %d, %v", len(p), off, n, err)
				}
			}
		})
	}
	wg.Wait()
	for _, off := range []int64{int64(len(data)), int64(len(data)) + 1} {
		if n, err := r.ReadAt(make([]byte, 1), off); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %d, %v", n, err)
		}
	}
}

// TestTruncate cuts an ingest to any size, and goes on.
func TestTruncate(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	data := objectstest.Random(1, 1<<20)
	for _, size := range []int64{0, 1, 262144, 300_000, 1 << 20} {
		w, err := h.Writer(t.Context(), ctd.WithRef("ref"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Truncate(int64(len(data)) + 1); !errdefs.IsInvalidArgument(err) {
			t.Errorf("Truncate beyond the end: %v", err)
		}
		if err := w.Truncate(size); err != nil {
			t.Fatal(err)
		}
		more := fmt.Appendf(nil, "and then %d", size)
		if _, err := w.Write(more); err != nil {
			t.Fatal(err)
		}
		want := append(append([]byte{}, data[:size]...), more...)
		d := digest.FromBytes(want)
		if err := w.Commit(t.Context(), int64(len(want)), d); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context(), h, d, 1<<20); err != nil || !bytes.Equal(got, want) {
			t.Errorf("cut to %d: %d bytes, %v", size, len(got), err)
		}
	}
}

// TestDelete gives space back, and leaves the chunks that another blob has.
func TestDelete(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	data := objectstest.Random(1, 4<<20)
	long, short := ingest(t, h, data), ingest(t, h, data[:2<<20])
	before := h.Objects.Stats().Bytes
	if err := h.Delete(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Info(t.Context(), long); !errdefs.IsNotFound(err) {
		t.Errorf("Info of what was deleted: %v", err)
	}
	if err := h.Delete(t.Context(), long); !errdefs.IsNotFound(err) {
		t.Errorf("Delete of what was deleted: %v", err)
	}
	for began := time.Now(); h.Objects.Stats().Bytes > before-4<<20; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("%d bytes are left of %d", h.Objects.Stats().Bytes, before)
		}
	}
	if got, err := read(t.Context(), h, short, 1<<20); err != nil || !bytes.Equal(got, data[:2<<20]) {
		t.Errorf("the other blob: %d bytes, %v", len(got), err)
	}
	_, leaves := objectstest.New(t, ipfs.LayoutBlob, data[:2<<20])
	for _, leaf := range leaves {
		if _, err := h.Objects.Get(t.Context(), leaf.Cid); err != nil {
			t.Errorf("a chunk that both had: %v", err)
		}
	}
}

// TestAbort ends an ingest under its writer.
func TestAbort(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	w, err := h.Writer(t.Context(), ctd.WithRef("ref"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("something")); err != nil {
		t.Fatal(err)
	}
	if err := h.Abort(t.Context(), "ref"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("more")); !errdefs.IsAborted(err) {
		t.Errorf("Write after Abort: %v", err)
	}
	if err := w.Commit(t.Context(), 0, ""); !errdefs.IsAborted(err) {
		t.Errorf("Commit after Abort: %v", err)
	}
	if _, err := h.Status(t.Context(), "ref"); !errdefs.IsNotFound(err) {
		t.Errorf("Status after Abort: %v", err)
	}
	if err := h.Abort(t.Context(), "ref"); !errdefs.IsNotFound(err) {
		t.Errorf("Abort of nothing: %v", err)
	}
	w, err = h.Writer(t.Context(), ctd.WithRef("ref"))
	if err != nil {
		t.Fatal(err)
	}
	if st, err := w.Status(); err != nil || st.Offset != 0 {
		t.Errorf("the next ingest has %d bytes, %v", st.Offset, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

// TestHostileNames has refs and digests that are paths, too long, or nothing.
func TestHostileNames(t *testing.T) {
	dir := t.TempDir()
	h := openHost(t, dir, ipfstest.NewMemory())
	for _, ref := range []string{"../../../../escape", "/abs", "a/b", "\x00", "ü", string(bytes.Repeat([]byte("x"), 4096))} {
		w, err := h.Writer(t.Context(), ctd.WithRef(ref))
		if err != nil {
			t.Fatalf("%.20q: %v", ref, err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if st, err := h.Status(t.Context(), ref); err != nil || st.Ref != ref {
			t.Errorf("%.20q: %+v, %v", ref, st, err)
		}
	}
	if list, err := h.ListStatuses(t.Context(), "ref==a/b"); err != nil || len(list) != 1 {
		t.Errorf("one of the ingests: %v, %v", list, err)
	}
	for _, ref := range []string{"", string(bytes.Repeat([]byte("x"), 4097))} {
		if _, err := h.Writer(t.Context(), ctd.WithRef(ref)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a ref of %d bytes: %v", len(ref), err)
		}
	}
	for _, d := range []digest.Digest{"", "sha256:../../x", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		_, err := h.Info(t.Context(), d)
		_, rerr := h.ReaderAt(t.Context(), ocispec.Descriptor{Digest: d})
		for _, err := range []error{err, rerr, h.Delete(t.Context(), d)} {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("digest %q: %v", d, err)
			}
		}
	}
}

// TestMany ingests, reads, aborts and deletes a thousand blobs from many goroutines.
func TestMany(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	var wg sync.WaitGroup
	for worker := range 20 {
		wg.Go(func() {
			for i := range 50 {
				// Half of them are everybody's.
				data := objectstest.Random(int64(i), 1000+7000*(i%40))
				if i%2 == 0 {
					data = append(data, byte(worker))
				}
				d := digest.FromBytes(data)
				ref := fmt.Sprintf("ref-%d-%d", worker, i)
				err := ctd.WriteBlob(t.Context(), h, ref, bytes.NewReader(data), ocispec.Descriptor{Digest: d, Size: int64(len(data))})
				if err != nil {
					t.Errorf("ingest: %v", err)
				}
				if got, err := read(t.Context(), h, d, 100_000); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes of %d are read, %v", len(got), len(data), err)
				}
				if i%4 == 0 {
					if err := h.Delete(t.Context(), d); err != nil {
						t.Errorf("delete: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	if list, err := h.ListStatuses(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("ingests are left: %v, %v", list, err)
	}
	if got, want := len(listed(t, h)), 25+20*12; got != want {
		t.Errorf("%d blobs are listed, want %d", got, want)
	}
}

// TestAgain deletes a blob and commits it again at once, again and again: it stays.
func TestAgain(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	data := objectstest.Random(1, 300_000)
	for range 30 {
		d := ingest(t, h, data)
		time.Sleep(50 * time.Millisecond)
		if err := h.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	d := ingest(t, h, data)
	time.Sleep(2500 * time.Millisecond) // what was deleted is freed
	if got, err := read(t.Context(), h, d, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if pins, err := h.Objects.Pins(t.Context(), ""); err != nil || len(pins) != 1 {
		t.Errorf("it is kept by %v, %v", pins, err)
	}
}

// TestFreedByClose deletes a blob just before the store is closed: its space comes back all the same.
func TestFreedByClose(t *testing.T) {
	dir := t.TempDir()
	h := openHost(t, dir, ipfstest.NewMemory())
	d := ingest(t, h, objectstest.Random(1, 300_000))
	if err := errors.Join(h.Delete(t.Context(), d), h.Close()); err != nil {
		t.Fatal(err)
	}
	h = openHost(t, dir, ipfstest.NewMemory())
	pins, err := h.Objects.Pins(t.Context(), "")
	if stats := h.Objects.Stats(); err != nil || stats.Bytes > 0 || len(pins) > 0 {
		t.Errorf("left are %+v, %v, %v", stats, pins, err)
	}
}

// TestTwoStores has two stores on one node: neither touches the pins of the other.
func TestTwoStores(t *testing.T) {
	node := ipfstest.NewMemory()
	data := objectstest.Random(1, 300_000)
	var stores []*contenttest.Host
	for range 2 {
		dir := t.TempDir()
		h, err := contenttest.OpenOn(dir, node)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		ingest(t, h, data)
		stores = append(stores, h)
	}
	pins, err := node.Pins(t.Context(), "")
	if err != nil || len(pins) != 2 {
		t.Errorf("two stores have one blob: %v, %v", pins, err)
	}
	if err := errors.Join(stores[0].Delete(t.Context(), digest.FromBytes(data)), stores[0].Close()); err != nil {
		t.Fatal(err)
	}
	if pins, err = node.Pins(t.Context(), ""); err != nil || len(pins) != 1 {
		t.Errorf("one of them has deleted it: %v, %v", pins, err)
	}
	if got, err := read(t.Context(), stores[1], digest.FromBytes(data), 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the other reads %d bytes, %v", len(got), err)
	}
}

// TestOpenWithoutPins opens a store whose node does not answer: it is there soon, with what it has.
func TestOpenWithoutPins(t *testing.T) {
	node, dir := ipfstest.NewMemory(), t.TempDir()
	h, err := contenttest.OpenOn(dir, node)
	if err != nil {
		t.Fatal(err)
	}
	d := ingest(t, h, []byte("something"))
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	node.SetLatency(time.Hour)
	if h, err = contenttest.OpenOn(dir, node); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Info(t.Context(), d); err != nil {
		t.Error(err)
	}
	node.SetLatency(0)
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// TestStatusWhileResumed lists ingests, and aborts one, while it is hashed again.
func TestStatusWhileResumed(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	data := objectstest.Random(1, 8<<20)
	for range 5 {
		w, err := h.Writer(t.Context(), ctd.WithRef("ref"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			w, err := h.Writer(t.Context(), ctd.WithRef("ref"))
			if err != nil {
				t.Errorf("resume: %v", err)
				return
			}
			if err := w.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := h.ListStatuses(t.Context()); err != nil {
				t.Errorf("list: %v", err)
			}
		})
		wg.Wait()
		if err := h.Abort(t.Context(), "ref"); err != nil {
			t.Errorf("abort: %v", err)
		}
	}
}
