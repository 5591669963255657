package images_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab/images"
)

// TestWrite writes an image of each compression and finds that every digest, size and
// diffID in it holds.
func TestWrite(t *testing.T) {
	fill := images.Tar(func(t *images.Tarball) { t.File("f", 0o644, "content") })
	for _, docker := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "image")
		desc, err := images.Write(t.Context(), dir, images.Image{Docker: docker, Layers: []images.Layer{
			{Tar: fill}, {Tar: fill, Compression: images.Zstd}, {Tar: fill, Compression: images.None},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if docker != (desc.MediaType == images.DockerManifest) {
			t.Errorf("docker %v: %s", docker, desc.MediaType)
		}
		var manifest ocispec.Manifest
		unmarshal(t, blob(t, dir, desc), &manifest)
		var config ocispec.Image
		unmarshal(t, blob(t, dir, manifest.Config), &config)
		for i, l := range manifest.Layers {
			if got := digest.FromBytes(plain(t, l.MediaType, blob(t, dir, l))); got != config.RootFS.DiffIDs[i] {
				t.Errorf("layer %d: diffID %s, want %s", i, config.RootFS.DiffIDs[i], got)
			}
		}
	}
}

// TestNasty reads every layer with package archive/tar, and finds sparse files whole.
func TestNasty(t *testing.T) {
	entries, sparse := 0, 0
	for _, l := range images.Nasty().Layers {
		var b bytes.Buffer
		if err := l.Tar(&b); err != nil {
			t.Fatal(err)
		}
		for tr := tar.NewReader(&b); ; entries++ {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(tr)
			if err != nil || int64(len(content)) != h.Size {
				t.Fatalf("%q: %d bytes of %d: %v", h.Name, len(content), h.Size, err)
			}
			if h.Name == "sizes/sparse" && strings.Contains(string(content), "in the middle") {
				sparse++
			}
		}
	}
	if entries < 30_000 || sparse != 1 {
		t.Errorf("%d entries, %d sparse files with their content", entries, sparse)
	}
}

func blob(t *testing.T, dir string, desc ocispec.Descriptor) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", desc.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	if int64(len(b)) != desc.Size || digest.FromBytes(b) != desc.Digest {
		t.Errorf("%s: %d bytes of %s, want %d", desc.Digest, len(b), digest.FromBytes(b), desc.Size)
	}
	return b
}

func plain(t *testing.T, mediaType string, b []byte) []byte {
	t.Helper()
	var r io.Reader = bytes.NewReader(b)
	var err error
	switch {
	case strings.HasSuffix(mediaType, "gzip"):
		r, err = gzip.NewReader(r)
	case strings.HasSuffix(mediaType, "zstd"):
		r, err = zstd.NewReader(r)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unmarshal(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}
