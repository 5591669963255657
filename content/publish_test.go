package content_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/content/contenttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// TestPublish publishes blobs, and finds that noted after the store was opened again. What was told of them by labels stays.
func TestPublish(t *testing.T) {
	dir, peer := t.TempDir(), ipfstest.NewMemory()
	h, err := contenttest.Open(dir, peer)
	if err != nil {
		t.Fatal(err)
	}
	manifest, all, private := ingest(t, h.Store, []byte(`{"config":{}}`)), ingest(t, h.Store, []byte("shared with all")), ingest(t, h.Store, []byte("private"))
	large := ingest(t, h.Store, objectstest.Random(1, 300_000))
	lazy := newBlob(t, peer, 2, 1000)
	bind(t, h.Store, lazy.desc)
	for d, as := range map[digest.Digest][2]bool{manifest: {true, true}, all: {false, true}} {
		for range 2 {
			if err := h.Publish(d, as[0], as[1]); err != nil {
				t.Error(err)
			}
		}
	}
	if err := h.Publish(digest.FromString("unknown"), true, true); !errdefs.IsNotFound(err) {
		t.Errorf("what is not here: %v", err)
	}
	if _, err := h.Info(t.Context(), lazy.desc.Digest); err != nil {
		t.Error(err)
	}
	if err := h.Publish(lazy.desc.Digest, true, true); !errdefs.IsNotFound(err) {
		t.Errorf("what nobody has seen: %v", err)
	}
	check := func() {
		t.Helper()
		for d, want := range map[digest.Digest]bool{manifest: true, all: false, private: false, large: false} {
			if f, public, err := h.Blob(d); err != nil || public != want || f.Size == 0 || !f.Cid.Defined() {
				t.Errorf("blob %s: %v, %v, %v", d, f, public, err)
			}
		}
		if _, _, err := h.Blob(lazy.desc.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("a blob that nobody has seen: %v", err)
		}
		if list := h.Manifests(false); len(list) != 1 || list[0] != manifest {
			t.Errorf("public manifests: %q", list)
		}
		if list := h.Manifests(true); len(list) != 2 {
			t.Errorf("all manifests: %q", list)
		}
		for d, want := range map[digest.Digest]bool{manifest: false, all: true, private: true, large: false, lazy.desc.Digest: false} {
			c, err := mediatype.BlobCid(d)
			if err != nil {
				t.Fatal(err)
			}
			if got := h.IsPrivate(c); got != want {
				t.Errorf("the block of %s is private: %v", d, got)
			}
			if h.IsPrivate(cid.NewCidV1(cid.DagProtobuf, c.Hash())) {
				t.Error("a node is private")
			}
		}
	}
	check()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = openHost(t, dir, peer)
	check()
	pins, err := h.Objects.Pins(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, pin := range pins {
		if !content.IsPin(pin.Name) {
			t.Errorf("pin %q is not taken for the store's", pin.Name)
		}
	}
	if content.IsPin("ipcs:layer") {
		t.Error("another's pin is taken for the store's")
	}
}

// TestRootDigest has a blob by the digest of its root, once that is here: its bytes are what its blocks say, others are not told that they have this digest, and
// the node keeps them until the blob is deleted.
func TestRootDigest(t *testing.T) {
	blocks := ipfstest.NewMemory() // of a node that is this one
	h := openHost(t, t.TempDir(), blocks)
	data := objectstest.Random(1, 3<<20)
	f, leaves := objectstest.New(t, ipfs.LayoutBlob, data)
	if _, err := f.Build(func(b ipfs.Block) error {
		leaves = append(leaves, b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	hash := f.Cid.Hash()
	d := digest.NewDigestFromBytes(digest.SHA256, hash[len(hash)-32:])
	if _, err := h.Info(t.Context(), d); !errdefs.IsNotFound(err) {
		t.Errorf("a root that is not here: %v", err)
	}
	if err := errors.Join(blocks.Put(t.Context(), leaves...), h.Objects.Put(t.Context(), leaves...)); err != nil {
		t.Fatal(err)
	}
	if info, err := h.Info(t.Context(), d); err != nil || info.Size != f.Size {
		t.Fatalf("%+v, %v", info, err)
	}
	if got, err := read(t.Context(), h.Store, d, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, _, err := h.Blob(d); !errdefs.IsNotFound(err) {
		t.Errorf("others are told that bytes have a digest which they have not: %v", err)
	}
	if err := h.Publish(d, true, true); !errdefs.IsNotFound(err) {
		t.Errorf("published: %v", err)
	}
	pins := func() int {
		list, err := h.Objects.Pins(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if n := pins(); n != 1 {
		t.Errorf("%d pins", n)
	}
	if err := h.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); pins() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was deleted is pinned")
		}
	}
	// A node that is the root of something else is no blob.
	dir, err := ipfs.NewBlock(cid.DagProtobuf, []byte{0x0a, 2, 8, 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Objects.Put(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Info(t.Context(), digest.FromBytes(dir.Data)); !errdefs.IsNotFound(err) {
		t.Errorf("a directory: %v", err)
	}
}
