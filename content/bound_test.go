package content_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/content/contenttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// A blob is one that a peer has.
type blob struct {
	data []byte
	desc ocispec.Descriptor
	file ipfs.File
}

// newBlob gives a node a blob of n bytes.
func newBlob(t *testing.T, node *ipfstest.Memory, seed int64, n int) blob {
	t.Helper()
	data := objectstest.Random(seed, n)
	f, leaves := objectstest.New(t, ipfs.LayoutBlob, data)
	if f.NumLeaves() > 1 {
		_, err := f.Build(func(b ipfs.Block) error {
			leaves = append(leaves, b)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Put(t.Context(), leaves...); err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(data), Size: int64(n),
		Annotations: map[string]string{mediatype.AnnotationBlob: f.Cid.String()},
	}
	return blob{data, desc, f}
}

// openHost opens a store with a peer.
func openHost(t *testing.T, dir string, peers *ipfstest.Memory) *contenttest.Host {
	t.Helper()
	h, err := contenttest.Open(dir, peers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// ingest writes a blob, and returns its digest.
func ingest(t *testing.T, store ctd.Store, data []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(data)
	if err := ctd.WriteBlob(t.Context(), store, "ref-"+d.String(), bytes.NewReader(data), ocispec.Descriptor{Digest: d, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	return d
}

// bind ingests a manifest of these layers.
func bind(t *testing.T, store ctd.Store, layers ...ocispec.Descriptor) digest.Digest {
	t.Helper()
	data, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: layers})
	if err != nil {
		t.Fatal(err)
	}
	return ingest(t, store, data)
}

// read reads a blob in pieces of so many bytes.
func read(ctx context.Context, store ctd.Provider, d digest.Digest, piece int) ([]byte, error) {
	var out []byte
	for {
		// A new reader for each, as the server of containerd's proxies does.
		r, err := store.ReaderAt(ctx, ocispec.Descriptor{Digest: d})
		if err != nil {
			return out, err
		}
		p := make([]byte, piece)
		n, err := r.ReadAt(p, int64(len(out)))
		out = append(out, p[:n]...)
		if cerr := r.Close(); cerr != nil {
			return out, cerr
		}
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
	}
}

func listed(t *testing.T, store ctd.Store) map[digest.Digest]bool {
	t.Helper()
	all := map[digest.Digest]bool{}
	err := store.Walk(t.Context(), func(info ctd.Info) error {
		all[info.Digest] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestBound has blobs by what a manifest says of them: known at once, and not a byte fetched; read as they are; and ingested once they were read to the end, also
// by a store that was opened again in between.
func TestBound(t *testing.T) {
	peer := ipfstest.NewMemory()
	for i, n := range []int{1, 262144, 262145, 5<<20 + 1} {
		dir := t.TempDir()
		h := openHost(t, dir, peer)
		b := newBlob(t, peer, int64(i), n)
		before := peer.Counts().Blocks
		manifest := bind(t, h, b.desc)
		if all := listed(t, h); len(all) != 1 || !all[manifest] {
			t.Errorf("Walk lists %v, and nobody was told of more", all)
		}
		info, err := h.Info(t.Context(), b.desc.Digest)
		if err != nil || info.Size != int64(n) || peer.Counts().Blocks != before {
			t.Fatalf("%d bytes: Info = %+v, %v, after %d blocks", n, info, err, peer.Counts().Blocks-before)
		}
		if _, err := h.Writer(t.Context(), ctd.WithRef("x"), ctd.WithDescriptor(b.desc)); !errdefs.IsAlreadyExists(err) {
			t.Errorf("Writer of what is bound: %v", err)
		}
		if all := listed(t, h); len(all) != 2 || !all[manifest] || !all[b.desc.Digest] {
			t.Errorf("Walk lists %v", all)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h = openHost(t, dir, peer)
		if data, err := read(t.Context(), h, b.desc.Digest, 100_000); err != nil || !bytes.Equal(data, b.data) {
			t.Fatalf("%d bytes: %d are read, %v", n, len(data), err)
		}
		if all := listed(t, h); !all[b.desc.Digest] {
			t.Errorf("%d bytes: it was read to the end, and is not listed", n)
		}
		peer.SetFault(func(string, cid.Cid) error { return errors.New("the peer is gone") })
		if data, err := read(t.Context(), h, b.desc.Digest, 1<<20); err != nil || !bytes.Equal(data, b.data) {
			t.Errorf("%d bytes: without the peer, %d are read, %v", n, len(data), err)
		}
		peer.SetFault(nil)
		if err := h.Delete(t.Context(), b.desc.Digest); err != nil {
			t.Error(err)
		}
	}
}

// TestWrongRoot has a manifest that binds a digest to something else: it is found out before the last byte, is not believed again, and hinders no true one.
func TestWrongRoot(t *testing.T) {
	peer, dir := ipfstest.NewMemory(), t.TempDir()
	h := openHost(t, dir, peer)
	true1, other := newBlob(t, peer, 1, 3<<20), newBlob(t, peer, 2, 3<<20)
	lie := true1.desc
	lie.Annotations = other.desc.Annotations
	liar := bind(t, h, lie)
	data, err := read(t.Context(), h, lie.Digest, 1<<20)
	if !errors.Is(err, content.ErrWrongRoot) || len(data) > 2<<20 {
		t.Fatalf("%d bytes are read, %v", len(data), err)
	}
	for range 2 {
		if _, err := h.Info(t.Context(), lie.Digest); !errdefs.IsNotFound(err) {
			t.Errorf("Info of what was bound wrongly: %v", err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		h = openHost(t, dir, peer)
	}
	bind(t, h, true1.desc)
	if data, err := read(t.Context(), h, true1.desc.Digest, 1<<20); err != nil || !bytes.Equal(data, true1.data) {
		t.Errorf("bound by a true manifest, %d bytes are read, %v", len(data), err)
	}
	if err := h.Delete(t.Context(), liar); err != nil {
		t.Error(err)
	}
}

// TestWrongSize has a manifest with a size that is not that of the root.
func TestWrongSize(t *testing.T) {
	peer := ipfstest.NewMemory()
	h := openHost(t, t.TempDir(), peer)
	b := newBlob(t, peer, 1, 3<<20)
	for _, size := range []int64{3<<20 - 1, 3<<20 + 1, content.MaxBound} {
		lie := b.desc
		lie.Size = size
		lie.Digest = digest.FromString(lie.Digest.String() + string(rune(size)))
		bind(t, h, lie)
		if data, err := read(t.Context(), h, lie.Digest, 1<<20); !errors.Is(err, ipfs.ErrFile) || len(data) > 0 {
			t.Errorf("%d bytes claimed: %d read, %v", size, len(data), err)
		}
	}
}

// TestPeerVanishes in the middle of a read: the error says so in time, and when the peer is back the read goes on.
func TestPeerVanishes(t *testing.T) {
	peer := ipfstest.NewMemory()
	h := openHost(t, t.TempDir(), peer)
	b := newBlob(t, peer, 1, 40<<20)
	bind(t, h, b.desc)
	r, err := h.ReaderAt(t.Context(), b.desc)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 1<<20)
	if _, err := r.ReadAt(p, 0); err != nil || !bytes.Equal(p, b.data[:1<<20]) {
		t.Fatalf("the first piece: %v", err)
	}
	gone := errors.New("the peer is gone")
	peer.SetFault(func(string, cid.Cid) error { return gone })
	began := time.Now()
	if _, err := r.ReadAt(p, 39<<20); err == nil || time.Since(began) > time.Minute {
		t.Errorf("without the peer: %v after %v", err, time.Since(began))
	}
	peer.SetFault(nil)
	if data, err := read(t.Context(), h, b.desc.Digest, 1<<20); err != nil || !bytes.Equal(data, b.data) {
		t.Errorf("the peer is back: %d bytes, %v", len(data), err)
	}
}

// TestOwed has a blob that somebody was told of, by a manifest that is gone since: it can be read until it is deleted. Nobody is told of one whose manifest is gone.
func TestOwed(t *testing.T) {
	peer, dir := ipfstest.NewMemory(), t.TempDir()
	h := openHost(t, dir, peer)
	b, c := newBlob(t, peer, 1, 1<<20), newBlob(t, peer, 2, 10)
	one, two := bind(t, h, b.desc), bind(t, h, b.desc, c.desc)
	if _, err := h.Info(t.Context(), b.desc.Digest); err != nil {
		t.Fatal(err)
	}
	for _, manifest := range []digest.Digest{one, two} {
		if err := h.Delete(t.Context(), manifest); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Info(t.Context(), c.desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("no manifest binds it any more: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	h = openHost(t, dir, peer)
	if data, err := read(t.Context(), h, b.desc.Digest, 1<<20); err != nil || !bytes.Equal(data, b.data) {
		t.Errorf("somebody was told of it: %d bytes, %v", len(data), err)
	}
	if err := h.Delete(t.Context(), b.desc.Digest); err != nil {
		t.Error(err)
	}
	if _, err := h.Info(t.Context(), b.desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("it was deleted: %v", err)
	}
}

// TestAnyOrder reads a blob that is bound wrongly, and one that is not, in other orders than from its beginning: the end is given out of the true one alone, which is
// ingested then.
func TestAnyOrder(t *testing.T) {
	const size, piece = 3 << 20, 1 << 20
	for _, order := range [][]int64{{2, 1, 0}, {1, 2, 0}, {2}, {0, 2, 1, 2}} {
		peer := ipfstest.NewMemory()
		h := openHost(t, t.TempDir(), peer)
		honest, other := newBlob(t, peer, 1, size), newBlob(t, peer, 2, size)
		lie := newBlob(t, peer, 3, size).desc
		lie.Annotations = other.desc.Annotations
		bind(t, h, honest.desc, lie)
		for _, desc := range []ocispec.Descriptor{honest.desc, lie} {
			r, err := h.ReaderAt(t.Context(), desc)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range order {
				p := make([]byte, piece)
				_, err := r.ReadAt(p, i*piece)
				switch {
				case desc.Digest == honest.desc.Digest && (err != nil || !bytes.Equal(p, honest.data[i*piece:][:piece])):
					t.Errorf("%v: piece %d: %v", order, i, err)
				case desc.Digest == lie.Digest && i == 2 && !errors.Is(err, content.ErrWrongRoot):
					t.Errorf("%v: the end of what is wrong: %v", order, err)
				}
			}
		}
		pins, err := h.Objects.Pins(t.Context(), "")
		if err != nil || !slices.ContainsFunc(pins, func(p ipfs.Pin) bool { return p.Root.Equals(honest.file.Cid) }) {
			t.Errorf("%v: it was read, and is not pinned: %v, %v", order, pins, err)
		}
	}
}

// TestNextCandidate has one manifest that lies of a blob, and then one that does not: the blob can be read as soon as the lie is found out.
func TestNextCandidate(t *testing.T) {
	peer := ipfstest.NewMemory()
	h := openHost(t, t.TempDir(), peer)
	honest, other := newBlob(t, peer, 1, 1<<20), newBlob(t, peer, 2, 1<<20)
	lie := honest.desc
	lie.Annotations = other.desc.Annotations
	bind(t, h, lie)
	bind(t, h, honest.desc)
	if _, err := read(t.Context(), h, honest.desc.Digest, 1<<20); !errors.Is(err, content.ErrWrongRoot) {
		t.Errorf("the lie: %v", err)
	}
	if data, err := read(t.Context(), h, honest.desc.Digest, 1<<20); err != nil || !bytes.Equal(data, honest.data) {
		t.Errorf("another manifest tells the truth: %d bytes, %v", len(data), err)
	}
}
