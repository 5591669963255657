package convert_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openSource and openTarget open references that tests wrote down.
func openSource(t *testing.T, a convert.Access, ref string) convert.Source {
	t.Helper()
	src, err := a.OpenSource(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, src) })
	return src
}

func openTarget(t *testing.T, a convert.Access, ref string) convert.Target {
	t.Helper()
	dst, err := a.OpenTarget(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeStore(t, dst) })
	return dst
}

// writeLayout writes the image of src as an OCI layout.
func writeLayout(t *testing.T, src *memory) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	for d, data := range src.blobs {
		writeFile(t, filepath.Join(dir, "blobs", "sha256", d.Encoded()), data)
	}
	top := src.top
	top.Annotations = map[string]string{ocispec.AnnotationRefName: "latest"}
	index, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "manifests": []any{top}, "annotations": map[string]string{"unknown": "kept"},
	})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "index.json"), index)
	writeFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	return dir
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// testLayout returns a layout with one image, and that image's digest.
func testLayout(t *testing.T) (dir string, d digest.Digest) {
	t.Helper()
	src := newMemory()
	newImage("amd64").files(src, "hello", "world").files(src, "more").store(src)
	return writeLayout(t, src), src.top.Digest
}

func TestLayout(t *testing.T) {
	dir, d := testLayout(t)
	node := ipfstest.NewMemory()
	var a convert.Access
	var digests []digest.Digest
	for _, source := range []string{"oci:" + dir, "oci:" + dir + ":latest", "oci:" + dir + "@" + d.String()} {
		for _, target := range []string{"oci:" + dir + ":ipcs", "oci:" + filepath.Join(t.TempDir(), "new", "folder")} {
			src, dst := openSource(t, a, source), openTarget(t, a, target)
			report := mustConvert(t, convert.Options{Source: src, Target: dst, Node: node})
			got, err := openSource(t, a, target).Resolve(t.Context())
			if err != nil || got.Digest != report.Digest {
				t.Errorf("%s resolves to %s, %v; want %s", target, got.Digest, err, report.Digest)
			}
			digests = append(digests, report.Digest)
		}
	}
	for _, d := range digests {
		if d != digests[0] {
			t.Errorf("digests differ: %s", digests)
		}
	}
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Manifests[0].Digest != d || index.Annotations["unknown"] != "kept" {
		t.Errorf("index.json is %s", data)
	}
}

func TestLayoutErrors(t *testing.T) {
	dir, _ := testLayout(t)
	other := t.TempDir()
	writeFile(t, filepath.Join(other, "something"), nil)
	newer, _ := testLayout(t)
	writeFile(t, filepath.Join(newer, "oci-layout"), []byte(`{"imageLayoutVersion":"2.0.0"}`))
	broken, _ := testLayout(t)
	writeFile(t, filepath.Join(broken, "index.json"), []byte(`{"manifests":[`))
	for ref, says := range map[string]string{
		"oci:" + dir + ":absent":                            "it has latest",
		"oci:" + dir + "@sha256:" + strings.Repeat("0", 64): "does not exist",
		"oci:" + filepath.Join(dir, "absent"):               "is no OCI layout",
		"oci:" + other:                                      "is no OCI layout",
		"oci:" + newer:                                      `version "2.0.0"`,
		"oci:" + broken:                                     "index.json",
	} {
		if _, err := openSource(t, convert.Access{}, ref).Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", ref, err, says)
		}
	}
	for ref, says := range map[string]string{
		"oci:" + other: "neither empty nor an OCI layout",
		"oci:" + newer: `version "2.0.0"`,
		"oci:" + filepath.Join(dir, "index.json"): "not a directory",
	} {
		if err := openTarget(t, convert.Access{}, ref).Prepare(t.Context()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: error %v, want one with %q", ref, err, says)
		}
	}
}

func TestIncompleteLayout(t *testing.T) {
	src := newMemory()
	im := newImage("amd64").files(src, "hello")
	im.store(src)
	dir := writeLayout(t, src)
	if err := os.Remove(filepath.Join(dir, "blobs", "sha256", im.layers[0].Digest.Encoded())); err != nil {
		t.Fatal(err)
	}
	target := "oci:" + filepath.Join(t.TempDir(), "out")
	_, err := convert.Image(t.Context(), convert.Options{
		Source: openSource(t, convert.Access{}, "oci:"+dir), Target: openTarget(t, convert.Access{}, target), Node: ipfstest.NewMemory(),
	})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "incomplete") {
		t.Errorf("error %v", err)
	}
}

// Two conversions into one folder do not lose each other's tags.
func TestLayoutConcurrentTags(t *testing.T) {
	source, _ := testLayout(t)
	dir := filepath.Join(t.TempDir(), "out")
	node := ipfstest.NewMemory()
	var wg sync.WaitGroup
	const n = 8
	for i := range n {
		src := openSource(t, convert.Access{}, "oci:"+source)
		dst := openTarget(t, convert.Access{}, fmt.Sprintf("oci:%s:tag%d", dir, i))
		wg.Go(func() {
			if _, err := convert.Image(t.Context(), convert.Options{Source: src, Target: dst, Node: node}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range n {
		if _, err := openSource(t, convert.Access{}, fmt.Sprintf("oci:%s:tag%d", dir, i)).Resolve(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestReferences(t *testing.T) {
	for _, ref := range []string{"", "oci:", "oci::tag", "oci:dir:", "oci:dir:a b", "oci:dir@sha256:12", "containerd:", "a//b", "x:y:z"} {
		if _, err := (convert.Access{}).OpenSource(t.Context(), ref); !errors.Is(err, convert.ErrReference) {
			t.Errorf("source %q: error %v, want ErrReference", ref, err)
		}
	}
	zeros := "@sha256:" + strings.Repeat("0", 64)
	for _, ref := range []string{"oci:dir" + zeros, "localhost:5000/a" + zeros} {
		if _, err := (convert.Access{}).OpenTarget(t.Context(), ref); !errors.Is(err, convert.ErrReference) {
			t.Errorf("target %q: error %v, want ErrReference", ref, err)
		}
	}
	for ref, want := range map[string]string{
		"localhost:5000/a/b":     "localhost:5000/a/b:latest",
		"[::1]:5000/a:tag":       "[::1]:5000/a:tag",
		"oci:some/dir":           "oci:some/dir:latest",
		"oci:/host:5000/dir:tag": "oci:/host:5000/dir:tag",
		"oci:/host:5000/dir":     "oci:/host:5000/dir:latest",
	} {
		if got := openSource(t, convert.Access{}, ref).String(); got != want {
			t.Errorf("%s is %s, want %s", ref, got, want)
		}
	}
	if got := openSource(t, convert.Access{}, "debian").String(); !strings.HasSuffix(got, "/library/debian:latest") {
		t.Errorf("debian is %s, want what Docker takes it for", got)
	}
	if !convert.Same("debian", "debian:latest") || convert.Same("oci:a:x", "oci:a:y") {
		t.Error("Same is wrong")
	}
}

// FuzzReference: a reference is refused, or means the same when it is written in full.
func FuzzReference(f *testing.F) {
	f.Add("oci:dir:tag")
	f.Fuzz(func(t *testing.T, ref string) {
		if strings.HasPrefix(ref, "containerd:") {
			return // needs a socket
		}
		src, err := (convert.Access{}).OpenSource(t.Context(), ref)
		if err != nil {
			return
		}
		full := src.String()
		again, err := (convert.Access{}).OpenSource(t.Context(), full)
		if err != nil || again.String() != full || !convert.Same(ref, full) {
			t.Errorf("%q is %q, and that is %v, %v", ref, full, again, err)
		}
	})
}
