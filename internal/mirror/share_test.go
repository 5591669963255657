package mirror_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/mirror"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

// pulled has containerd pull a blob by way of the mirror, which has not got it.
func (m *machine) pulled(t *testing.T, what string, data []byte) digest.Digest {
	t.Helper()
	d := digest.FromBytes(data)
	if w := m.get("/v2/image/"+what+"/"+d.String()+"?ns=registry.example", nil); w.Code != http.StatusNotFound {
		t.Fatalf("what nobody has: %d", w.Code)
	}
	return m.commit(t, data)
}

// manifestOf is a manifest with this config.
func manifestOf(config []byte) (_, manifest []byte) {
	return config, fmt.Appendf(nil, `{"config":{"digest":%q,"size":%d}}`, digest.FromBytes(config), len(config))
}

// TestClaimedManifest has a registry say that it has a manifest whose config it has not: it is not public.
func TestClaimedManifest(t *testing.T) {
	m := open(t, mirror.SharePublic)
	config, manifest := manifestOf([]byte("a config with a secret"))
	m.public.manifests[digest.FromBytes(manifest)] = true
	m.pulled(t, "blobs", config)
	d := m.pulled(t, "manifests", manifest)
	if m.told(t, d) {
		t.Error("others are told of a manifest that a registry only says it has")
	}
	// An index is what one of its manifests is.
	config, manifest = manifestOf([]byte("a public config"))
	index := fmt.Appendf(nil, `{"manifests":[{"digest":%q,"size":%d}]}`, digest.FromBytes(manifest), len(manifest))
	for _, data := range [][]byte{manifest, index} {
		m.public.manifests[digest.FromBytes(data)] = true
	}
	m.public.blobs[digest.FromBytes(config)] = config
	d = m.pulled(t, "manifests", index)
	m.pulled(t, "manifests", manifest)
	m.pulled(t, "blobs", config)
	for range 8 {
		if m.told(t, d) {
			return
		}
	}
	t.Error("others are not told of a public index")
}

// TestServed has a blob that the daemon's registry has served: it came from peers, and they get it.
func TestServed(t *testing.T) {
	m := open(t, mirror.SharePublic)
	data := []byte("a config of an image on IPFS")
	m.Served(digest.FromBytes(data), false)
	d := m.commit(t, data)
	if !m.told(t, d) || m.Withheld(keyOf(t, d)) {
		t.Error("what came from peers is not given to peers")
	}
}

// keyOf is the block of a small blob, and what its manifest is found by.
func keyOf(t *testing.T, d digest.Digest) cid.Cid {
	t.Helper()
	c, err := mediatype.BlobCid(d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestShare says what others get: in each mode what they are told of, what they find by routers, and which blocks they get.
func TestShare(t *testing.T) {
	large, small, config := objectstest.Random(1, 700_000), []byte("a layer"), []byte("a config")
	image, manifest := manifestOf([]byte("a public config"))
	type want struct{ large, small, manifest, config, unasked bool }
	for share, want := range map[mirror.Share]want{
		mirror.SharePublic: {large: true, small: true, manifest: true},
		mirror.ShareAll:    {true, true, true, true, true},
		mirror.ShareNone:   {},
	} {
		t.Run(string(share), func(t *testing.T) {
			m := open(t, share)
			m.public.blobs[digest.FromBytes(large)] = large
			m.public.blobs[digest.FromBytes(small)] = small
			m.public.manifests[digest.FromBytes(manifest)] = true
			m.public.blobs[digest.FromBytes(image)] = image
			m.pulled(t, "blobs", image)
			m.pulled(t, "manifests", manifest)
			m.pulled(t, "blobs", large)
			m.pulled(t, "blobs", small)
			m.pulled(t, "blobs", config) // which the registry does not give anybody
			unasked := m.commit(t, []byte("imported"))
			for name, c := range map[string]struct {
				digest digest.Digest
				want   bool
			}{
				"large": {digest.FromBytes(large), want.large}, "small": {digest.FromBytes(small), want.small},
				"manifest": {digest.FromBytes(manifest), want.manifest}, "config": {digest.FromBytes(config), want.config}, "unasked": {unasked, want.unasked},
			} {
				if told := m.told(t, c.digest); told != c.want {
					t.Errorf("others are told of %s: %v", name, told)
				}
				if name != "large" && m.Withheld(keyOf(t, c.digest)) == c.want {
					t.Errorf("the block of %s is withheld: %v", name, c.want)
				}
			}
			if found := slices.Contains(m.Keys(t.Context()), keyOf(t, digest.FromBytes(manifest))); found != want.manifest {
				t.Errorf("others find the manifest: %v", found)
			}
			if len(m.Keys(t.Context())) > 1 {
				t.Error("others are told of more than manifests")
			}
		})
	}
}

// TestPublic asks registries that are not as they should be.
func TestPublic(t *testing.T) {
	data := objectstest.Random(1, 700_000)
	d := digest.FromBytes(data)
	for name, tt := range map[string]struct {
		registry func(*registry)
		want     bool
	}{
		"other bytes":        {func(r *registry) { r.blobs[d] = objectstest.Random(2, 700_000) }, false},
		"fewer bytes":        {func(r *registry) { r.blobs[d] = data[:0] }, false},
		"as a whole only":    {func(r *registry) { r.blobs[d], r.whole = data, true }, true},
		"no longer":          {func(r *registry) {}, false},
		"it is the manifest": {func(r *registry) { r.manifests[d] = true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := open(t, mirror.SharePublic)
			tt.registry(m.public)
			m.pulled(t, "blobs", data)
			if told := m.told(t, d); told != tt.want {
				t.Errorf("others are told: %v", told)
			}
		})
	}
}

// TestWithheldNeeded has a block that is private, and that something else has which is pinned: others get it for that.
func TestWithheldNeeded(t *testing.T) {
	m := open(t, mirror.SharePublic)
	data := []byte("a config that was pulled, and converted")
	d := m.commit(t, data)
	if !m.Withheld(keyOf(t, d)) {
		t.Error("a private block is given to others")
	}
	v0 := cid.NewCidV1(cid.Raw, keyOf(t, d).Hash())
	if !m.Withheld(v0) {
		t.Error("a private block is given to others")
	}
	n := open(t, mirror.SharePublic)
	if err := n.objects.Put(t.Context(), block(t, data)); err != nil {
		t.Fatal(err)
	}
	if err := n.objects.Pin(t.Context(), ipfs.Pin{Root: keyOf(t, d), Name: "ipcs:converted"}); err != nil {
		t.Fatal(err)
	}
	n.commit(t, data)
	if n.Withheld(keyOf(t, d)) {
		t.Error("what was converted into this node is withheld")
	}
	// When it is deleted, its block is there for a while.
	if err := m.content.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if has, err := m.objects.Has(t.Context(), keyOf(t, d)); err == nil && has && !m.Withheld(keyOf(t, d)) {
		t.Error("a private block that was deleted is given to others")
	}
}

func block(t *testing.T, data []byte) ipfs.Block {
	t.Helper()
	b, err := ipfs.NewBlock(cid.Raw, data)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDeleted tells nobody of what was deleted.
func TestDeleted(t *testing.T) {
	m := open(t, mirror.SharePublic)
	config, manifest := manifestOf([]byte("a config"))
	d := digest.FromBytes(manifest)
	m.public.manifests[d], m.public.blobs[digest.FromBytes(config)] = true, config
	m.pulled(t, "blobs", config)
	m.pulled(t, "manifests", manifest)
	if !m.told(t, d) {
		t.Fatal("a public manifest is not told of")
	}
	if f, public, err := m.content.Blob(d); err != nil || !public || f.Size != int64(len(manifest)) {
		t.Errorf("%v, %v", public, err)
	}
	for range 100 { // it is written down before it is known
		if len(m.Keys(t.Context())) == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if keys := m.Keys(t.Context()); len(keys) != 1 {
		t.Errorf("others find %q", keys)
	}
	if err := m.content.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.Lookup(t.Context(), d.String()); ok || len(m.Keys(t.Context())) > 0 {
		t.Error("others are told of what was deleted")
	}
}
