package convert

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

// FuzzOriginal reads what a manifest says it was made from. What is accepted has the digest
// that was claimed, and converts to the config that is there.
func FuzzOriginal(f *testing.F) {
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", "FuzzOriginal"))
	if err != nil || len(seeds) < 3 {
		f.Fatalf("%d seeds (%v)", len(seeds), err)
	}
	f.Fuzz(func(t *testing.T, digested, manifest, config string, configData []byte, layers uint8, kept bool) {
		im := &image{configData: configData, annotations: map[string]string{mediatype.AnnotationManifest: digested}}
		if manifest != "" {
			im.annotations[mediatype.AnnotationManifestData] = manifest
		}
		if config != "" {
			im.annotations[mediatype.AnnotationConfigData] = config
		}
		for i := range layers % 8 {
			l := sourceLayer{desc: ocispec.Descriptor{MediaType: mediatype.Layer, Digest: digest.FromBytes([]byte{i})}}
			if kept {
				l.desc.Annotations = map[string]string{mediatype.AnnotationKeep: "true"}
			}
			im.layers = append(im.layers, l)
		}
		orig, err := im.original()
		if err != nil {
			return
		}
		if got := digest.FromBytes(orig.data); got.String() != digested {
			t.Errorf("original %s passes for %s", got, digested)
		}
		if len(orig.layers) != len(im.layers) || kept && len(im.layers) > 0 && !bytes.Equal(orig.configData, im.configData) {
			t.Errorf("%d layers of %d, config %q for %q", len(orig.layers), len(im.layers), orig.configData, im.configData)
		}
	})
}

// TestPackText gives back bytes, within a limit.
func TestPackText(t *testing.T) {
	for _, data := range [][]byte{[]byte("{}"), bytes.Repeat([]byte("x"), 1<<20)} {
		text, err := packText(data)
		if err != nil {
			t.Fatal(err)
		}
		got, err := unpackText(text, 1<<20)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes come back as %d (%v)", len(data), len(got), err)
		}
		if _, err := unpackText(text, len(data)-1); err == nil {
			t.Errorf("%d bytes pass a limit of one less", len(data))
		}
	}
	packed, err := packText([]byte("{ }"))
	if err != nil || !strings.HasSuffix(packed, "=") {
		t.Fatal(packed, err)
	}
	broken := packed[:4] + "\n" + packed[4:]
	for _, bad := range []string{"", "?", "AAAA", strings.Repeat("A", 100), broken, packed + "\r\n", packed + packed} {
		if data, err := unpackText(bad, 100); err == nil {
			t.Errorf("%q is %q", bad, data)
		}
	}
}

// TestPackTextWindow reads what streams of the highest levels are, short as they may be.
func TestPackTextWindow(t *testing.T) {
	for size, want := range map[int]bool{8 << 20: true, 16 << 20: false} {
		var b bytes.Buffer
		zip, err := zstd.NewWriter(&b, zstd.WithWindowSize(size))
		if err != nil {
			t.Fatal(err)
		}
		// What is flushed before the end cannot say how much there is.
		for range 2 {
			if _, err := zip.Write([]byte("{}")); err != nil {
				t.Fatal(err)
			}
			if err := zip.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := zip.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := unpackText(base64.StdEncoding.EncodeToString(b.Bytes()), maxManifest)
		if (err == nil) != want || want && string(got) != "{}{}" {
			t.Errorf("window of %d: %q, %v", size, got, err)
		}
	}
}

// TestManifestLimit does not write what no registry takes.
func TestManifestLimit(t *testing.T) {
	big, err := json.Marshal(map[string]string{"x": strings.Repeat("y", maxManifest)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := asDocument(ocispec.MediaTypeImageManifest, big); err == nil {
		t.Error("a manifest that is too large is written")
	}
}
