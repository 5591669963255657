package content_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
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

// TestKeptWhileFreed deletes a blob that is kept again by its root while what was deleted is freed, again and again: it stays.
func TestKeptWhileFreed(t *testing.T) {
	blocks := ipfstest.NewMemory()
	h := openHost(t, t.TempDir(), blocks)
	data := objectstest.Random(1, 600_000)
	f, leaves := objectstest.New(t, ipfs.LayoutBlob, data)
	if _, err := f.Build(func(b ipfs.Block) error {
		leaves = append(leaves, b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(blocks.Put(t.Context(), leaves...), h.Objects.Put(t.Context(), leaves...)); err != nil {
		t.Fatal(err)
	}
	hash := f.Cid.Hash()
	d := digest.NewDigestFromBytes(digest.SHA256, hash[len(hash)-digest.SHA256.Size():])
	for i := range 40 {
		if _, err := h.Info(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := h.Delete(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(90+i) * time.Millisecond) // so that it is freed at any moment
	}
	if _, err := h.Info(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2500 * time.Millisecond)
	if pins, err := h.Objects.Pins(t.Context(), ""); err != nil || len(pins) != 1 {
		t.Errorf("it is kept by %v, %v", pins, err)
	}
	if got, err := read(t.Context(), h.Store, d, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
