package convert_test

import (
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A badImage is an image that must be refused.
type badImage struct {
	make func(src *memory, im *testImage) // im is stored after it
	is   error
	says string
}

// badContent are images whose blobs are not what the manifest says.
func badContent() map[string]badImage {
	return map[string]badImage{
		"truncated gzip": {is: convert.ErrCorrupt, says: "ends after", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			src.blobs[im.layers[0].Digest] = src.blobs[im.layers[0].Digest][:40]
		}},
		"gzip cut before it was pushed": {is: convert.ErrCorrupt, says: "gzip stream is broken", make: func(src *memory, im *testImage) {
			tarball := makeTar("hello")
			im.layer(src, ocispec.MediaTypeImageLayerGzip, gzipped(tarball)[:60], tarball)
		}},
		"broken gzip": {is: convert.ErrCorrupt, says: "gzip stream is broken", make: func(src *memory, im *testImage) {
			tarball := makeTar("hello")
			blob := gzipped(tarball)
			blob[30] ^= 0xff
			im.layer(src, ocispec.MediaTypeImageLayerGzip, blob, tarball)
		}},
		"gzip with something after it": {is: convert.ErrCorrupt, says: "gzip stream is broken", make: func(src *memory, im *testImage) {
			tarball := makeTar("hello")
			im.layer(src, ocispec.MediaTypeImageLayerGzip, append(gzipped(tarball), "junk junk junk"...), tarball)
		}},
		"broken zstd": {is: convert.ErrCorrupt, says: "zstd stream is broken", make: func(src *memory, im *testImage) {
			tarball := makeTar("hello")
			blob := zstandard(tarball)
			im.layer(src, ocispec.MediaTypeImageLayerZstd, blob[:len(blob)-3], tarball)
		}},
		"other bytes of the same length": {is: convert.ErrCorrupt, says: "its digest is", make: func(src *memory, im *testImage) {
			tarball := makeTar("hello")
			im.layer(src, ocispec.MediaTypeImageLayer, tarball, tarball)
			src.blobs[im.layers[0].Digest] = makeTar("hallo")
		}},
		"longer than the manifest says": {is: convert.ErrCorrupt, says: "longer than", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			d := im.layers[0].Digest
			src.blobs[d] = append(src.blobs[d][:len(src.blobs[d]):len(src.blobs[d])], 0)
		}},
		"diffID of another tar": {is: convert.ErrCorrupt, says: "diffID in the config", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.diffIDs[0] = digest.FromString("other")
		}},
		"no tar": {is: layer.ErrTar, make: func(src *memory, im *testImage) {
			text := []byte(strings.Repeat("this is no tar. ", 100))
			im.layer(src, ocispec.MediaTypeImageLayerGzip, gzipped(text), text)
		}},
		"damaged, and so no tar": {is: convert.ErrCorrupt, says: "its digest is", make: func(src *memory, im *testImage) {
			text := []byte(strings.Repeat("this was a tar. ", 100))
			im.layer(src, ocispec.MediaTypeImageLayer, text, text)
			src.blobs[im.layers[0].Digest] = []byte(strings.Repeat("x", len(text)))
		}},
		"too few diffIDs": {is: convert.ErrCorrupt, says: "0 diffIDs for the 1 layers", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.diffIDs = nil
		}},
	}
}

// badDocuments are images that can be refused before any layer is read.
func badDocuments() map[string]badImage {
	return map[string]badImage{
		"foreign layer": {is: convert.ErrUnsupported, says: "foreign", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		}},
		"encrypted layer": {is: convert.ErrUnsupported, says: "encrypted", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.layers[0].MediaType += "+encrypted"
		}},
		"ipcs layer": {is: convert.ErrUnsupported, says: "ipcs layer already", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.layers[0].MediaType = mediatype.Layer
		}},
		"layer of another kind": {is: convert.ErrUnsupported, says: "media type", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.layers[0].MediaType = "application/vnd.erofs.layer.v1"
		}},
		"layer without a type": {is: convert.ErrUnsupported, says: "no media type", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.layers[0].MediaType = ""
		}},
		"digest that leaves the folder": {is: convert.ErrCorrupt, says: "malformed", make: func(src *memory, im *testImage) {
			im.files(src, "hello")
			im.layers[0].Digest = "sha256:../../../etc/passwd"
		}},
		"too many layers": {is: convert.ErrUnsupported, says: "layers", make: func(src *memory, im *testImage) {
			for range layer.MaxImageLayers + 1 {
				im.files(src, "hello")
			}
		}},
		"artifact": {is: convert.ErrUnsupported, says: "no container image", make: func(_ *memory, im *testImage) {
			im.manifest.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
		}},
		"config without a type": {is: convert.ErrUnsupported, says: "no media type", make: func(_ *memory, im *testImage) {
			im.manifest.Config.MediaType = ""
		}},
		"config with two rootfs": {is: convert.ErrCorrupt, says: "RootFS", make: func(_ *memory, im *testImage) {
			im.config["RootFS"] = 1
		}},
		"huge config": {says: "more than", make: func(_ *memory, im *testImage) {
			im.config["comment"] = strings.Repeat("x", 9<<20)
		}},
		"huge manifest": {says: "more than", make: func(_ *memory, im *testImage) {
			im.manifest.Annotations["x"] = strings.Repeat("x", 5<<20)
		}},
		"manifest that is called an index": {is: convert.ErrUnsupported, says: "media type", make: func(_ *memory, im *testImage) {
			im.manifest.MediaType = ocispec.MediaTypeImageIndex
		}},
	}
}

// TestBadSource: each kind of bad input has its own error, and nothing is tagged.
func TestBadSource(t *testing.T) {
	cases := badContent()
	maps.Copy(cases, badDocuments())
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			src := newMemory()
			im := newImage("amd64")
			c.make(src, im)
			im.store(src)
			checkRefused(t, src, c.is, c.says)
		})
	}
}

// checkRefused converts, and wants an error and nothing tagged.
func checkRefused(t *testing.T, src *memory, is error, says string) {
	t.Helper()
	dst, node := newMemory(), ipfstest.NewMemory()
	_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: node})
	if err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
		t.Errorf("error is %v; want %v, with %q in it", err, is, says)
	}
	if dst.tagged.Digest != "" {
		t.Error("something was tagged")
	}
	pins, err := node.Pins(t.Context(), "")
	if err != nil || len(pins) != 0 {
		t.Errorf("pinned %v, error %v", pins, err)
	}
}

// TestBadManifest: documents that are no manifest at all.
func TestBadManifest(t *testing.T) {
	cases := map[string]struct {
		mt, text string
		is       error
		says     string
	}{
		"schema 1":            {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1,"fsLayers":[]}`, convert.ErrUnsupported, "schema 1"},
		"schema 1, untold":    {"", `{"schemaVersion":1,"fsLayers":[]}`, convert.ErrUnsupported, "schema 1"},
		"both kinds":          {"", `{"layers":[],"config":{},"manifests":[]}`, convert.ErrUnsupported, "either"},
		"neither kind":        {"", `{}`, convert.ErrUnsupported, "either"},
		"no JSON":             {"", `<html>`, convert.ErrCorrupt, "manifest"},
		"two types":           {dockerManifest, `{"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[]}`, convert.ErrCorrupt, "descriptor says"},
		"an index of nothing": {ocispec.MediaTypeImageIndex, `{"manifests":[]}`, convert.ErrUnsupported, "no container image"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			src := newMemory()
			src.top = src.add(c.mt, []byte(c.text))
			checkRefused(t, src, c.is, c.says)
		})
	}
}

// An index that holds itself would need a broken hash, but one may be deep.
func TestDeepIndex(t *testing.T) {
	src := newMemory()
	desc := newImage("amd64").files(src, "hello").store(src)
	for range 6 {
		desc = src.addJSON(ocispec.MediaTypeImageIndex, ocispec.Index{
			MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc},
		})
	}
	src.top = desc
	checkRefused(t, src, convert.ErrUnsupported, "within each other")
}

// Seeds that are not found would be a fuzz target that tests nothing.
func TestSeeds(t *testing.T) {
	for _, target := range []string{"FuzzManifest", "FuzzReference"} {
		seeds, err := filepath.Glob("testdata/fuzz/" + target + "/*")
		if err != nil || len(seeds) < 10 {
			t.Errorf("%s has %d seeds, error %v", target, len(seeds), err)
		}
	}
}

// FuzzManifest: whatever a manifest and a config hold, the answer is an error or an
// image whose config has the diffIDs of its layers.
func FuzzManifest(f *testing.F) {
	src := newMemory()
	top := newImage("amd64").files(src, "hello").store(src)
	var manifest ocispec.Manifest
	if err := json.Unmarshal(src.blobs[top.Digest], &manifest); err != nil {
		f.Fatal(err)
	}
	blob := src.blobs[manifest.Layers[0].Digest]
	f.Add(src.blobs[top.Digest], src.blobs[manifest.Config.Digest], top.MediaType)
	f.Fuzz(func(t *testing.T, manifest, config []byte, mt string) {
		src, dst := newMemory(), newMemory()
		src.add("", config)
		src.add("", blob)
		src.top = src.add(mt, manifest)
		report, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory()})
		if err != nil {
			if dst.tagged.Digest != "" {
				t.Error("tagged in spite of an error")
			}
			return
		}
		for _, m := range report.Manifests {
			var out ocispec.Manifest
			var image ocispec.Image
			dst.read(t, m.Digest, &out)
			dst.read(t, out.Config.Digest, &image)
			if len(image.RootFS.DiffIDs) != len(out.Layers) {
				t.Fatalf("%d diffIDs for %d layers", len(image.RootFS.DiffIDs), len(out.Layers))
			}
			for i, l := range out.Layers {
				if image.RootFS.DiffIDs[i] != l.Digest {
					t.Errorf("diffID %d is %s, and the layer %s", i, image.RootFS.DiffIDs[i], l.Digest)
				}
			}
		}
	})
}
