package content_test

import (
	"testing"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/content/contenttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
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
