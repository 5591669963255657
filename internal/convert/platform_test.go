package convert_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// newIndex stores an index of one image for each platform, which share a layer, with
// what registries hold beside them.
func newIndex(t *testing.T, src *memory, mt string, names ...string) {
	t.Helper()
	index := ocispec.Index{MediaType: mt, Annotations: map[string]string{"of the index": "kept"}}
	index.SchemaVersion = 2
	for _, name := range names {
		p, err := convert.ParsePlatforms([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		im := newImage(p[0].Architecture).files(src, "shared").files(src, name)
		if mt == dockerList {
			im.manifest.MediaType, im.manifest.Config.MediaType = dockerManifest, dockerConfig
		}
		desc := im.store(src)
		desc.Platform, desc.Annotations = &p[0], map[string]string{"of the entry": name}
		index.Manifests = append(index.Manifests, desc)
	}
	attestation := newImage("unknown").files(src, "provenance").store(src)
	attestation.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	index.Manifests = append(index.Manifests, attestation)
	src.top = src.addJSON(mt, index)
}

func TestPlatforms(t *testing.T) {
	available := []string{"linux/arm/v7", "linux/amd64", "linux/arm64", "linux/arm/v6"}
	cases := map[string]struct {
		asked []string
		all   bool
		want  []string
	}{
		"one":            {asked: []string{"linux/arm64"}, want: []string{"linux/arm64"}},
		"two":            {asked: []string{"linux/arm64", "linux/amd64"}, want: []string{"linux/arm64", "linux/amd64"}},
		"one twice":      {asked: []string{"linux/amd64", "linux/amd64"}, want: []string{"linux/amd64"}},
		"the best match": {asked: []string{"linux/arm/v7"}, want: []string{"linux/arm/v7"}},
		"a lower one":    {asked: []string{"linux/arm/v6"}, want: []string{"linux/arm/v6"}},
		"all":            {all: true, want: available},
	}
	for name, c := range cases {
		for _, mt := range []string{ocispec.MediaTypeImageIndex, dockerList} {
			t.Run(name+" of "+mt[len("application/vnd."):], func(t *testing.T) {
				src, dst, notes := newMemory(), newMemory(), &notes{}
				newIndex(t, src, mt, available...)
				platforms, err := convert.ParsePlatforms(c.asked)
				if err != nil {
					t.Fatal(err)
				}
				report := mustConvert(t, convert.Options{
					Source: src, Target: dst, Node: ipfstest.NewMemory(),
					Platforms: platforms, AllPlatforms: c.all, Progress: notes,
				})
				checkPlatforms(t, dst, report, c.want)
				if notes.ended != len(c.want)+1 {
					t.Errorf("%d layers converted, want %d and a shared one", notes.ended, len(c.want))
				}
				if len(notes.texts) != 1 || !strings.Contains(notes.texts[0], "attestation") {
					t.Errorf("notes %q", notes.texts)
				}
			})
		}
	}
}

// checkPlatforms checks that the result holds these: an index if there are several.
func checkPlatforms(t *testing.T, dst *memory, report *convert.Report, want []string) {
	t.Helper()
	var got []string
	for _, m := range report.Manifests {
		got = append(got, m.Platform)
	}
	if !slices.Equal(got, want) {
		t.Errorf("converted %q, want %q", got, want)
	}
	if len(want) == 1 {
		if dst.tagged.MediaType != ocispec.MediaTypeImageManifest || dst.tagged.Platform != nil || dst.tagged.Annotations != nil {
			t.Errorf("tagged %+v", dst.tagged)
		}
		return
	}
	var index ocispec.Index
	dst.read(t, dst.tagged.Digest, &index)
	if index.MediaType != ocispec.MediaTypeImageIndex || len(index.Manifests) != len(want) || index.Annotations["of the index"] != "kept" {
		t.Fatalf("index %+v", index)
	}
	for i, m := range index.Manifests {
		if m.Digest != report.Manifests[i].Digest || m.Platform == nil || m.Annotations["of the entry"] != want[i] {
			t.Errorf("entry %d is %+v", i, m)
		}
	}
}

func TestMissingPlatform(t *testing.T) {
	asked, err := convert.ParsePlatforms([]string{"linux/s390x"})
	if err != nil {
		t.Fatal(err)
	}
	single, index := newMemory(), newMemory()
	newImage("amd64").files(single, "hello").store(single)
	newIndex(t, index, ocispec.MediaTypeImageIndex, "linux/amd64", "linux/arm64")
	for _, src := range []*memory{single, index} {
		_, err := convert.Image(t.Context(), convert.Options{
			Source: src, Target: newMemory(), Node: ipfstest.NewMemory(), Platforms: asked,
		})
		if !errors.Is(err, convert.ErrPlatform) || !strings.Contains(err.Error(), "s390x") || !strings.Contains(err.Error(), "amd64") {
			t.Errorf("error %v: want one that names what was asked for and what there is", err)
		}
	}
}

// An index need not say what its manifests are for: their configs do.
func TestPlatformFromConfig(t *testing.T) {
	src := newMemory()
	var index ocispec.Index
	for _, arch := range []string{"arm64", "amd64"} {
		index.Manifests = append(index.Manifests, newImage(arch).files(src, arch).store(src))
	}
	src.top = src.addJSON(ocispec.MediaTypeImageIndex, index)
	asked, err := convert.ParsePlatforms([]string{"linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	report := mustConvert(t, convert.Options{Source: src, Target: newMemory(), Node: ipfstest.NewMemory(), Platforms: asked})
	if report.Manifests[0].Source != index.Manifests[1].Digest {
		t.Errorf("converted %+v", report.Manifests)
	}
}
