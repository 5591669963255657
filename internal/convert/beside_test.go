package convert_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/containerd/platforms"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestWithOriginal has original, ipcs image and seeds under one tag: each host finds its own, and so does whoever
// converts, restores or verifies it.
func TestWithOriginal(t *testing.T) {
	src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
	source := newImage("amd64").files(src, "hello", "").files(src, "above").store(src)
	opts := convert.Options{Source: src, Target: dst, Node: node, Seeds: true, WithOriginal: true}
	mustConvert(t, opts)
	var index ocispec.Index
	dst.read(t, dst.tagged.Digest, &index)
	if len(index.Manifests) != 3 || index.Manifests[0].Digest != source.Digest || !bytes.Equal(dst.blobs[source.Digest], src.blobs[source.Digest]) {
		t.Fatalf("the index has %+v", index.Manifests)
	}
	// What containerd 2.4 takes, with and without ipcs, and what older ones take, which know no features.
	for platform, want := range map[string]ocispec.Descriptor{"linux/amd64": index.Manifests[0], "linux(+ipcs)/amd64": index.Manifests[1]} {
		p := platforms.MustParse(platform)
		var found []ocispec.Descriptor
		for _, m := range index.Manifests {
			if platforms.Only(p).Match(*m.Platform) {
				found = append(found, m)
			}
		}
		slices.SortStableFunc(found, func(a, b ocispec.Descriptor) int {
			if platforms.Only(p).Less(*a.Platform, *b.Platform) {
				return -1
			}
			return 1
		})
		if len(found) == 0 || found[0].Digest != want.Digest {
			t.Errorf("%s finds %+v, want %s", platform, found, want.Digest)
		}
	}
	// Converted again, it is the same: what is converted is the original.
	first := dst.tagged.Digest
	dst.top = dst.tagged
	again := newMemory()
	opts.Source, opts.Target = dst, again
	if mustConvert(t, opts); again.tagged.Digest != first {
		t.Errorf("converted again it is %s, and was %s", again.tagged.Digest, first)
	}
	report, err := convert.Verify(t.Context(), convert.Options{Source: dst, Node: node})
	if err != nil || len(report.Manifests) != 1 || report.Manifests[0].Original != source.Digest {
		t.Errorf("verified: %+v, %v", report, err)
	}
	restored := newMemory()
	if _, err := convert.Restore(t.Context(), convert.Options{Source: dst, Target: restored, Node: node, Compression: convert.Gzip}); err != nil {
		t.Error(err)
	}
	if restored.tagged.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("restored it is a %s", restored.tagged.MediaType)
	}
	// Another image in the place of the original is found out.
	other := newImage("amd64").files(dst, "other").store(dst)
	index.Manifests[0].Digest, index.Manifests[0].Size = other.Digest, other.Size
	dst.top = dst.addJSON(ocispec.MediaTypeImageIndex, index)
	report, err = convert.Verify(t.Context(), convert.Options{Source: dst, Node: node})
	if !errors.Is(err, convert.ErrUnproven) || len(report.Manifests) != 2 || report.Manifests[1].Digest != other.Digest {
		t.Errorf("with another original: %+v, %v", report, err)
	}
}

// TestOriginalOfAnotherPlatform has the original of one platform be what the ipcs image of another was made from: hosts of
// that platform that have no ipcs would run something else.
func TestOriginalOfAnotherPlatform(t *testing.T) {
	src, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
	var descs []ocispec.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		newImage(arch).files(src, "for "+arch).store(src)
		mustConvert(t, convert.Options{Source: src, Target: dst, Node: node, WithOriginal: true})
		var index ocispec.Index
		dst.read(t, dst.tagged.Digest, &index)
		descs = append(descs, index.Manifests...)
	}
	honest := ocispec.Index{Manifests: descs}
	honest.SchemaVersion = 2
	dst.top = dst.addJSON(ocispec.MediaTypeImageIndex, honest)
	if _, err := convert.Verify(t.Context(), convert.Options{Source: dst, Node: node}); err != nil {
		t.Error(err)
	}
	one := convert.Options{Source: dst, Node: node, Platforms: []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}}
	if report, err := convert.Verify(t.Context(), one); err != nil || len(report.Manifests) != 1 {
		t.Errorf("one platform: %+v, %v", report, err)
	}
	swapped := honest
	swapped.Manifests = slices.Clone(descs)
	swapped.Manifests[0].Digest, swapped.Manifests[0].Size = descs[2].Digest, descs[2].Size
	dst.top = dst.addJSON(ocispec.MediaTypeImageIndex, swapped)
	if report, err := convert.Verify(t.Context(), convert.Options{Source: dst, Node: node}); !errors.Is(err, convert.ErrUnproven) {
		t.Errorf("the original of another platform: %+v, %v", report, err)
	}
}

// TestOriginalCorrupt copies no layer that is not what it should be.
func TestOriginalCorrupt(t *testing.T) {
	src, dst := newMemory(), newMemory()
	im := newImage("amd64").files(src, "hello")
	im.store(src)
	node := ipfstest.NewMemory()
	opts := convert.Options{Source: src, Target: dst, Node: node}
	mustConvert(t, opts) // so that the layer is not read again
	src.blobs[im.layers[0].Digest] = bytes.Repeat([]byte{1}, int(im.layers[0].Size))
	opts.WithOriginal, opts.Target = true, newMemory()
	if _, err := convert.Image(t.Context(), opts); !errors.Is(err, convert.ErrCorrupt) {
		t.Errorf("a changed layer: %v", err)
	}
}
