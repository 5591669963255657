package mediatype_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/mediatype"
)

func readSpec(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile("../spec/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSpecAnnotations holds the names of annotations to the specification.
func TestSpecAnnotations(t *testing.T) {
	_, section, ok := strings.Cut(readSpec(t, "image.md"), "\n## Annotations\n")
	if !ok {
		t.Fatal("image.md has no section of annotations")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var got []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(section, -1) {
		got = append(got, m[1])
	}
	want := []string{
		mediatype.AnnotationRoot, mediatype.AnnotationImage, mediatype.AnnotationKeep, mediatype.AnnotationFill, mediatype.AnnotationPeers, mediatype.AnnotationDiffID, mediatype.AnnotationSource,
		mediatype.AnnotationManifest, mediatype.AnnotationManifestData, mediatype.AnnotationConfigData,
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the specification names %q, the code %q", got, want)
	}
}

// TestSpecMediaType holds the media type to the specification.
func TestSpecMediaType(t *testing.T) {
	if !strings.Contains(readSpec(t, "layer.md"), "`"+mediatype.Layer+"`") {
		t.Errorf("layer.md does not name %s", mediatype.Layer)
	}
}
