package mediatype_test

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/mediatype"
)

func TestDigestAndCidAreOneHash(t *testing.T) {
	block := []byte("a layer root")
	root, err := mediatype.RootCid(digest.FromBytes(block))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := mh.Sum(block, mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	if want := cid.NewCidV1(cid.DagProtobuf, hash); !root.Equals(want) {
		t.Errorf("RootCid = %s, want %s", root, want)
	}
	if back, err := mediatype.LayerDigest(root); err != nil || back != digest.FromBytes(block) {
		t.Errorf("LayerDigest = %s, %v", back, err)
	}
}

// TestBlobs maps what is no layer root.
func TestBlobs(t *testing.T) {
	for _, text := range []string{"", "{}", "a manifest"} {
		d := digest.FromString(text)
		hash, err := mh.Sum([]byte(text), mh.SHA2_256, -1)
		if err != nil {
			t.Fatal(err)
		}
		c, err := mediatype.BlobCid(d)
		if want := cid.NewCidV1(cid.Raw, hash); err != nil || !c.Equals(want) {
			t.Errorf("BlobCid(%s) = %s, %v; want %s", d, c, err, want)
		}
		if back, err := mediatype.BlobDigest(c); err != nil || back != d {
			t.Errorf("BlobDigest(%s) = %s, %v; want %s", c, back, err, d)
		}
		if back, err := mediatype.BlobDigest(cid.NewCidV1(cid.DagProtobuf, hash)); !errors.Is(err, mediatype.ErrNotBlob) {
			t.Errorf("BlobDigest of a dag-pb block = %s, %v", back, err)
		}
	}
	if c, err := mediatype.BlobCid(digest.SHA512.FromString("x")); !errors.Is(err, mediatype.ErrNotBlob) {
		t.Errorf("BlobCid of a sha512 = %s, %v", c, err)
	}
}

func TestRefused(t *testing.T) {
	for _, d := range []digest.Digest{"", "sha256:", "sha256:12", "md5:00", digest.SHA512.FromString("x"), digest.Digest("sha256:" + strings.Repeat("g", 64))} {
		if c, err := mediatype.RootCid(d); err == nil {
			t.Errorf("RootCid(%q) = %s", d, c)
		}
	}
	sum := sha256.Sum256(nil)
	hash, err := mh.Encode(sum[:], mh.SHA2_256)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := mh.Encode(sum[:], mh.IDENTITY)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]cid.Cid{
		"raw":      cid.NewCidV1(cid.Raw, hash),
		"version":  cid.NewCidV0(hash),
		"identity": cid.NewCidV1(cid.DagProtobuf, identity),
	} {
		if d, err := mediatype.LayerDigest(c); !errors.Is(err, mediatype.ErrNotLayerRoot) {
			t.Errorf("%s: LayerDigest = %s, %v", name, d, err)
		}
	}
}

// TestStockContainerdTakesIt holds the name to what it was chosen for.
func TestStockContainerdTakesIt(t *testing.T) {
	if !images.IsLayerType(mediatype.Layer) {
		t.Errorf("containerd does not take %s for a layer", mediatype.Layer)
	}
	for _, a := range []string{mediatype.AnnotationRoot, mediatype.AnnotationImage} {
		if !strings.HasPrefix(a, "containerd.io/snapshot/") {
			t.Errorf("containerd does not show %s to snapshotters", a)
		}
	}
}

func FuzzRootCid(f *testing.F) {
	f.Add("sha256:" + strings.Repeat("0", 64))
	f.Add("sha512:x")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := mediatype.RootCid(digest.Digest(s))
		if err != nil {
			return
		}
		if d, err := mediatype.LayerDigest(c); err != nil || string(d) != s {
			t.Errorf("%q became %s and %q, %v", s, c, d, err)
		}
	})
}
