package convert_test

import (
	"bytes"
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/mediatype"
)

// The tests here are of what an image claims of itself, and of what only part of it is.

// newIndexTrip converts an index of two platforms.
func newIndexTrip(t *testing.T) *trip {
	t.Helper()
	tr := &trip{src: newMemory(), ipcs: newMemory(), node: ipfstest.NewMemory()}
	newIndex(t, tr.src, ocispec.MediaTypeImageIndex, "linux/amd64", "linux/arm64")
	mustConvert(t, convert.Options{Source: tr.src, Target: tr.ipcs, Node: tr.node, AllPlatforms: true})
	tr.ipcs.top = tr.ipcs.tagged
	return tr
}

// TestVerifyAllPlatforms proves all of an index: an image of another platform than this
// host's counts, too.
func TestVerifyAllPlatforms(t *testing.T) {
	for i, name := range []string{"linux/amd64", "linux/arm64"} {
		tr := newIndexTrip(t)
		report, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node})
		if err != nil || len(report.Manifests) != 2 {
			t.Fatalf("%+v, %v", report, err)
		}
		only, err := ipfs.NewBlock(0x55, []byte(name))
		if err != nil {
			t.Fatal(err)
		}
		tr.node.Corrupt(only.Cid)
		report, err = convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node})
		if !errors.Is(err, convert.ErrUnproven) || report.Manifests[i].Layers[1].Error == "" || report.Manifests[1-i].Layers[1].Error != "" {
			t.Errorf("with other bytes for %s: %+v, %v", name, report, err)
		}
		other, err := convert.ParsePlatforms([]string{[]string{"linux/arm64", "linux/amd64"}[i]})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node, Platforms: other}); err != nil {
			t.Errorf("the other platform alone: %v", err)
		}
	}
}

// TestVerifyLeftOut does not pass an index with what a runtime could take for the image.
func TestVerifyLeftOut(t *testing.T) {
	amd64 := &ocispec.Platform{OS: "linux", Architecture: "amd64"}
	unknown := &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	attestation := map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	for name, c := range map[string]struct {
		change func(desc *ocispec.Descriptor)
		want   error
	}{
		"buildkit's attestation":      {func(d *ocispec.Descriptor) { d.Platform, d.Annotations = unknown, attestation }, nil},
		"an attestation with a host":  {func(d *ocispec.Descriptor) { d.Platform, d.Annotations = amd64, attestation }, convert.ErrUnproven},
		"an attestation for any host": {func(d *ocispec.Descriptor) { d.Annotations = attestation }, convert.ErrUnproven},
		"an artifact with a host":     {func(d *ocispec.Descriptor) { d.Platform, d.ArtifactType = amd64, "text/plain" }, convert.ErrUnproven},
	} {
		t.Run(name, func(t *testing.T) {
			tr := newIndexTrip(t)
			var index ocispec.Index
			tr.ipcs.read(t, tr.ipcs.top.Digest, &index)
			evil := newImage("amd64").files(tr.ipcs, "evil").store(tr.ipcs)
			c.change(&evil)
			index.Manifests = append([]ocispec.Descriptor{evil}, index.Manifests...)
			tr.ipcs.top = tr.ipcs.addJSON(ocispec.MediaTypeImageIndex, index)
			report, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node})
			if !errors.Is(err, c.want) || report == nil || len(report.Manifests) < 2 {
				t.Errorf("got %v, want %v; %+v", err, c.want, report)
			}
		})
	}
}

// TestRestoreDescriptors gives back the descriptors that the original has, also where the
// converted manifest was changed since, and where only some of the blobs are the same.
func TestRestoreDescriptors(t *testing.T) {
	src := newMemory()
	im := ordinaryImage(src)
	im.layers[0].Annotations = map[string]string{"about": "the layer", "io.containers.estargz.x": "the blob"}
	im.layers[0].URLs = []string{"https://example.com/layer"}
	im.layers[1].Annotations = maps.Clone(im.layers[0].Annotations)
	tr := newTrip(t, im, src, nil)
	tr.rewrite(t, func(m *ocispec.Manifest) {
		for i := range m.Layers {
			m.Layers[i].Annotations["about"], m.Layers[i].Annotations["more"] = "something else", "yes"
		}
	})
	dst, report := tr.back(t, convert.None)
	var manifest ocispec.Manifest
	dst.read(t, report.Digest, &manifest)
	plain, unpacked := manifest.Layers[0], manifest.Layers[1]
	if !maps.Equal(plain.Annotations, im.layers[0].Annotations) || len(plain.URLs) != 1 {
		t.Errorf("the blob that is the same has the descriptor %+v", plain)
	}
	if want := map[string]string{"about": "the layer"}; !maps.Equal(unpacked.Annotations, want) || unpacked.URLs != nil {
		t.Errorf("the blob that is another has the descriptor %+v", unpacked)
	}
	if got := report.Manifests[0].Original; got != tr.source.Digest {
		t.Errorf("the report says that the original is %q", got)
	}
}

// TestRestoreMediaTypes copies a blob that two manifests of an index give different types.
func TestRestoreMediaTypes(t *testing.T) {
	src, dst := newMemory(), newMemory()
	tarball := makeTar("hello")
	types := []string{ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd}
	var index ocispec.Index
	for i, arch := range []string{"amd64", "arm64"} {
		index.Manifests = append(index.Manifests, newImage(arch).layer(src, types[i], gzipped(tarball), tarball).store(src))
	}
	src.top = src.addJSON(ocispec.MediaTypeImageIndex, index)
	report, err := convert.Restore(t.Context(), convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory(), AllPlatforms: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range report.Manifests {
		var manifest ocispec.Manifest
		dst.read(t, m.Digest, &manifest)
		if got := manifest.Layers[0].MediaType; got != types[i] {
			t.Errorf("manifest %d: %s, want %s", i, got, types[i])
		}
	}
}

// TestMaxTar rebuilds no tar that is longer than it may be.
func TestMaxTar(t *testing.T) {
	src, dst := newMemory(), newMemory()
	tr := newTrip(t, ordinaryImage(src), src, nil)
	opts := convert.Options{Source: tr.ipcs, Target: dst, Node: tr.node, MaxTar: 1 << 20}
	if _, err := convert.Restore(t.Context(), opts); !errors.Is(err, convert.ErrUnsupported) || dst.tagged.Digest != "" {
		t.Errorf("restore: %v; tagged %q", err, dst.tagged.Digest)
	}
	if report, err := convert.Verify(t.Context(), opts); !errors.Is(err, convert.ErrUnproven) || !strings.Contains(report.Manifests[0].Layers[0].Error, "1048576 allowed") {
		t.Errorf("verify: %+v, %v", report, err)
	}
}

// TestSha512 gives back an image whose documents are named by another algorithm.
func TestSha512(t *testing.T) {
	src := newMemory()
	im := ordinaryImage(src)
	im.store(src)
	again := func(desc *ocispec.Descriptor, data []byte) {
		desc.Digest, desc.Size = digest.SHA512.FromBytes(data), int64(len(data))
		src.blobs[desc.Digest] = data
	}
	again(&im.manifest.Config, src.blobs[im.manifest.Config.Digest])
	src.top = src.addJSON(im.manifest.MediaType, im.manifest)
	again(&src.top, src.blobs[src.top.Digest])
	tr := &trip{src: src, ipcs: newMemory(), node: ipfstest.NewMemory()}
	mustConvert(t, convert.Options{Source: src, Target: tr.ipcs, Node: tr.node})
	tr.ipcs.top = tr.ipcs.tagged
	if report, err := convert.Verify(t.Context(), convert.Options{Source: tr.ipcs, Node: tr.node}); err != nil {
		t.Errorf("%+v, %v", report, err)
	}
	dst, report := tr.back(t, convert.None)
	var manifest ocispec.Manifest
	dst.read(t, report.Digest, &manifest)
	if manifest.Config.Digest != im.manifest.Config.Digest {
		t.Errorf("config %s, the original's is %s", manifest.Config.Digest, im.manifest.Config.Digest)
	}
}

// TestKeptOrdinary does not take an ordinary layer for one that kept its diffID.
func TestKeptOrdinary(t *testing.T) {
	src, tarball := newMemory(), makeTar("more")
	tr := newTrip(t, ordinaryImage(src), src, nil)
	tr.rewriteConfig(t, func(c *ocispec.Image) { c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(tarball)) })
	tr.rewrite(t, func(m *ocispec.Manifest) {
		l := tr.ipcs.add(ocispec.MediaTypeImageLayerGzip, gzipped(tarball))
		l.Annotations = map[string]string{mediatype.AnnotationKeep: "true"}
		m.Layers = append(m.Layers, l)
	})
	tr.back(t, convert.None)
}

// TestOriginalTooLarge says so where an original cannot travel.
func TestOriginalTooLarge(t *testing.T) {
	random := make([]byte, 4<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(random) // never fails
	src, dst, told := newMemory(), newMemory(), &notes{}
	im := newImage("amd64").files(src, "hello")
	im.config["noise"] = random
	im.store(src)
	mustConvert(t, convert.Options{Source: src, Target: dst, Node: ipfstest.NewMemory(), Progress: told})
	var manifest ocispec.Manifest
	dst.read(t, dst.tagged.Digest, &manifest)
	if _, ok := manifest.Annotations[mediatype.AnnotationConfigData]; ok || len(told.texts) != 1 || !strings.Contains(told.texts[0], "too large to travel") {
		t.Errorf("notes %q", told.texts)
	}
}

// TestDocumentsBounded does not hold all that the configs of an index have together.
func TestDocumentsBounded(t *testing.T) {
	src := newMemory()
	im := newImage("amd64")
	im.config["noise"] = strings.Repeat("x", 7<<20)
	var index ocispec.Index
	for i := range 10 {
		im.manifest.Annotations["number"] = string(bytes.Repeat([]byte("i"), i))
		index.Manifests = append(index.Manifests, im.store(src))
	}
	src.top = src.addJSON(ocispec.MediaTypeImageIndex, index)
	_, err := convert.Image(t.Context(), convert.Options{Source: src, Target: newMemory(), Node: ipfstest.NewMemory(), AllPlatforms: true})
	if !errors.Is(err, convert.ErrUnsupported) || !strings.Contains(err.Error(), "64 MiB") {
		t.Errorf("got %v", err)
	}
}
