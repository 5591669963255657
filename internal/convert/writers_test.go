package convert_test

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestWriters takes images that buildah and buildkit made there and back. The README in the
// folder says how each was made.
func TestWriters(t *testing.T) {
	files, err := filepath.Glob("testdata/writers/*.tar.zst")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/writers has %d images, %v", len(files), err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".tar.zst"), func(t *testing.T) {
			thereAndBack(t, unpackLayout(t, f))
		})
	}
}

// thereAndBack converts the image of a layout, verifies it, restores it, and compares that
// with what it was.
func thereAndBack(t *testing.T, dir string) {
	t.Helper()
	src := openSource(t, convert.Access{}, "oci:"+dir)
	ipcs, dst, node := newMemory(), newMemory(), ipfstest.NewMemory()
	amd64 := []ocispec.Platform{{OS: "linux", Architecture: "amd64"}}
	there := mustConvert(t, convert.Options{Source: src, Target: ipcs, Node: node, Platforms: amd64})
	ipcs.top = ipcs.tagged
	verified, err := convert.Verify(t.Context(), convert.Options{Source: ipcs, Node: node, Platforms: amd64})
	if err != nil {
		t.Fatal(err)
	}
	_, err = convert.Restore(t.Context(), convert.Options{Source: ipcs, Target: dst, Node: node, Platforms: amd64, Compression: convert.None})
	if err != nil {
		t.Fatal(err)
	}
	back := manifestOf(t, dst)
	original, config := originalOf(t, dir, there.Manifests[0].Source)
	if back.Config.Digest != original.Config.Digest || verified.Manifests[0].Original != there.Manifests[0].Source {
		t.Errorf("config %s, the original's is %s; verified to be of %s", back.Config.Digest, original.Config.Digest, verified.Manifests[0].Original)
	}
	for i, want := range config.RootFS.DiffIDs {
		if got := digest.FromBytes(dst.blobs[back.Layers[i].Digest]); got != want || verified.Manifests[0].Layers[i].DiffID != want {
			t.Errorf("layer %d is %s, the original's is %s", i, got, want)
		}
	}
	packed := func(l ocispec.Descriptor) bool { return !strings.HasSuffix(l.MediaType, ".tar") }
	if !slices.ContainsFunc(original.Layers, packed) {
		if _, ok := dst.blobs[there.Manifests[0].Source]; !ok {
			t.Errorf("manifest %s does not come back", there.Manifests[0].Source)
		}
	}
}

// manifestOf returns the only manifest of an image.
func manifestOf(t *testing.T, m *memory) (manifest ocispec.Manifest) {
	t.Helper()
	var index ocispec.Index
	m.read(t, m.tagged.Digest, &index)
	d := m.tagged.Digest
	if len(index.Manifests) == 1 {
		d = index.Manifests[0].Digest
	}
	m.read(t, d, &manifest)
	return manifest
}

// originalOf reads a manifest of a layout, and its config.
func originalOf(t *testing.T, dir string, d digest.Digest) (manifest ocispec.Manifest, config ocispec.Image) {
	t.Helper()
	m := newMemory()
	for _, v := range []any{&manifest, &config} {
		data, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		if err != nil {
			t.Fatal(err)
		}
		m.blobs[d] = data
		m.read(t, d, v)
		d = manifest.Config.Digest
	}
	if n := len(config.RootFS.DiffIDs); n == 0 || n != len(manifest.Layers) {
		t.Fatalf("%d layers with %d diffIDs", len(manifest.Layers), n)
	}
	return manifest, config
}

// unpackLayout unpacks a layout to a folder of its own.
func unpackLayout(t *testing.T, file string) string {
	t.Helper()
	packed, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	zip, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	defer zip.Close()
	dir := t.TempDir()
	for tr := tar.NewReader(zip); ; {
		hdr, err := tr.Next()
		if err == io.EOF {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if hdr.Typeflag == tar.TypeReg && filepath.IsLocal(hdr.Name) {
			writeFile(t, filepath.Join(dir, hdr.Name), data)
		}
	}
}
