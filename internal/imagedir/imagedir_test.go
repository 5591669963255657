package imagedir_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	mh "github.com/multiformats/go-multihash"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/imagedir"
	"github.com/hinshun/ipcs/internal/imagedir/imagedirtest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// open opens what must be an image.
func open(t *testing.T, node ipfs.Fetcher, root cid.Cid) *imagedir.Image {
	t.Helper()
	im, err := imagedir.Open(t.Context(), node, root)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// blobCid is the CID of a manifest as the root of an image.
func blobCid(t *testing.T, d digest.Digest) cid.Cid {
	t.Helper()
	c, err := mediatype.BlobCid(d)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestImage reads images of one platform and of two, by their directory and by their manifest.
func TestImage(t *testing.T) {
	for _, platforms := range [][]string{{"amd64"}, {"amd64", "arm64"}} {
		node := ipfstest.NewMemory()
		made := imagedirtest.Make(t, node, platforms...)
		stranger := imagedirtest.Make(t, node, "riscv64")
		for _, root := range []cid.Cid{made.Root, blobCid(t, made.Top.Digest)} {
			t.Run(fmt.Sprintf("%d %d", len(platforms), root.Type()), func(t *testing.T) {
				im := open(t, node, root)
				if tags := im.Tags(); !slices.Equal(tags, []string{"latest"}) {
					t.Errorf("tags %q", tags)
				}
				if d, err := im.Tag("latest"); err != nil || d != made.Top.Digest {
					t.Errorf("latest is %s, %v; want %s", d, err, made.Top.Digest)
				}
				if d, err := im.Tag("other"); !errors.Is(err, imagedir.ErrUnknown) {
					t.Errorf("other is %s, %v", d, err)
				}
				for d, want := range made.Data {
					if got, err := im.Blob(t.Context(), d); err != nil || !bytes.Equal(got, want) {
						t.Errorf("blob %s is %q, %v; want %q", d, got, err, want)
					}
				}
				for _, desc := range append(made.Manifests, made.Top) {
					if m, err := im.Manifest(t.Context(), desc.Digest); err != nil || m.MediaType != desc.MediaType || !bytes.Equal(m.Data, made.Data[desc.Digest]) {
						t.Errorf("manifest %s: %+v, %v", desc.Digest, m, err)
					}
				}
				if m, err := im.Manifest(t.Context(), made.Configs[0].Digest); !errors.Is(err, imagedir.ErrUnknown) {
					t.Errorf("the config as a manifest: %v, %v", m, err)
				}
				for d := range stranger.Data {
					if got, err := im.Blob(t.Context(), d); !errors.Is(err, imagedir.ErrUnknown) {
						t.Errorf("blob %s of another image: %q, %v", d, got, err)
					}
				}
				for _, d := range []digest.Digest{digest.SHA512.FromString(""), "", "sha256:12"} {
					if got, err := im.Blob(t.Context(), d); !errors.Is(err, imagedir.ErrUnknown) {
						t.Errorf("blob %q: %q, %v", d, got, err)
					}
				}
			})
		}
	}
}

// TestAllIsReachable walks the DAG of a directory: what is not there, a pin of it does not keep.
func TestAllIsReachable(t *testing.T) {
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64", "arm64")
	seen := map[cid.Cid]bool{}
	todo := []cid.Cid{made.Root}
	for len(todo) > 0 {
		c := todo[0]
		todo = todo[1:]
		data, err := node.Get(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		seen[c] = true
		links, err := ipfs.Links(ipfs.Block{Cid: c, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		todo = append(todo, links...)
	}
	// All that the node has is of this image.
	for _, c := range node.Cids() {
		if !seen[c] {
			t.Errorf("%s is not reached", c)
		}
	}
	again := ipfstest.NewMemory()
	if other := imagedirtest.Make(t, again, "amd64", "arm64"); !other.Root.Equals(made.Root) {
		t.Errorf("the same image is %s and %s", made.Root, other.Root)
	}
}

// TestRoundTrips counts how often the node is asked for an image that is elsewhere.
func TestRoundTrips(t *testing.T) {
	far := ipfstest.NewMemory()
	made := imagedirtest.Make(t, far, "amd64")
	node := ipfstest.NewMemory()
	node.Connect(far)
	if _, err := open(t, node, made.Root).Manifest(t.Context(), made.Top.Digest); err != nil {
		t.Fatal(err)
	}
	if n := node.Counts().Fetches; n != 4 {
		t.Errorf("asked %d times", n)
	}
}

// TestParseRoot takes each CID of an image in one spelling.
func TestParseRoot(t *testing.T) {
	node := ipfstest.NewMemory()
	made := imagedirtest.Make(t, node, "amd64")
	for _, c := range []cid.Cid{made.Root, blobCid(t, made.Top.Digest)} {
		if got, err := imagedir.ParseRoot(c.String()); err != nil || !got.Equals(c) {
			t.Errorf("%s: %s, %v", c, got, err)
		}
	}
	base36, err := made.Root.StringOfBase('k')
	if err != nil {
		t.Fatal(err)
	}
	long, err := mh.Sum([]byte("x"), mh.SHA2_512, -1)
	if err != nil {
		t.Fatal(err)
	}
	identity, err := mh.Sum([]byte("x"), mh.IDENTITY, -1)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", "latest", base36, strings.ToUpper(made.Root.String()), made.Root.String() + "a", cid.NewCidV0(made.Root.Hash()).String(),
		cid.NewCidV1(cid.DagCBOR, made.Root.Hash()).String(), cid.NewCidV1(cid.Raw, long).String(), cid.NewCidV1(cid.Raw, identity).String(),
	} {
		if c, err := imagedir.ParseRoot(s); !errors.Is(err, imagedir.ErrRoot) {
			t.Errorf("%q: %s, %v", s, c, err)
		}
	}
}
