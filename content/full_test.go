package content_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestDiskFull ingests more than the disk has: the error says so, nothing that was committed is lost, what was begun can be aborted, and then there is room again; also
// for a store that is opened anew.
func TestDiskFull(t *testing.T) {
	hosttest.Root(t)
	dir := filepath.Join(hosttest.Disk(t, "48m"), "store")
	h := openHost(t, dir, ipfstest.NewMemory())
	kept := objectstest.Random(1, 8<<20)
	d := ingest(t, h.Store, kept)
	for range 2 {
		w, err := h.Writer(t.Context(), ctd.WithRef("too much"))
		if err != nil {
			t.Fatal(err)
		}
		piece := objectstest.Random(2, 1<<20)
		for n := 0; err == nil && n < 64; n++ {
			_, err = w.Write(piece)
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("64 MiB on a disk of 48: %v", err)
		}
		st, err := w.Status()
		if err != nil || st.Offset < 16<<20 {
			t.Errorf("what was written until then is %+v, %v", st, err)
		}
		// It cannot be committed as what it is not.
		if err := w.Commit(t.Context(), 64<<20, ""); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("committed: %v", err)
		}
		if got, err := read(t.Context(), h.Store, d, 1<<20); err != nil || !bytes.Equal(got, kept) {
			t.Errorf("what was committed before: %d bytes, %v", len(got), err)
		}
		if err := h.Abort(t.Context(), "too much"); err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h = openHost(t, dir, ipfstest.NewMemory())
	}
	again := objectstest.Random(3, 16<<20)
	a := ingest(t, h.Store, again)
	if got, err := ctd.ReadBlob(t.Context(), h.Store, ocispec.Descriptor{Digest: a}); err != nil || !bytes.Equal(got, again) {
		t.Errorf("after an abort there is no room for a blob: %v", err)
	}
}

// TestFreedTogether deletes a blob just before another one is committed and deleted, too: the space of both comes back.
func TestFreedTogether(t *testing.T) {
	h := openHost(t, t.TempDir(), ipfstest.NewMemory())
	first := ingest(t, h, objectstest.Random(1, 300_000))
	if err := h.Delete(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	second := ingest(t, h, objectstest.Random(2, 300_000))
	if err := h.Delete(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); h.Objects.Stats().Objects > 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d blobs are left", h.Objects.Stats().Objects)
		}
	}
}
