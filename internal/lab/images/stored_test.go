package images_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab/images"
)

// write writes an image whose layers have one file each, of that content, on top of
// another image.
func write(t *testing.T, from *images.Stored, contents ...string) string {
	t.Helper()
	img := images.Image{From: from, Config: ocispec.ImageConfig{Cmd: contents}}
	for i, content := range contents {
		img.Layers = append(img.Layers, images.Layer{
			CreatedBy:   "test",
			Compression: images.Compression(i % 3),
			Tar:         images.Tar(func(t *images.Tarball) { t.File("f", 0o644, content) }),
		})
	}
	dir := filepath.Join(t.TempDir(), "image")
	if _, err := images.Write(t.Context(), dir, img); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string) *images.Stored {
	t.Helper()
	s, err := images.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// check finds that every layer is there, with the digest and diffID that are said.
func check(t *testing.T, dir string) *images.Stored {
	t.Helper()
	s := open(t, dir)
	for i, l := range s.Manifest.Layers {
		if got := digest.FromBytes(plain(t, l.MediaType, blob(t, dir, l))); got != s.Config.RootFS.DiffIDs[i] {
			t.Errorf("%s: layer %d: diffID %s, want %s", dir, i, got, s.Config.RootFS.DiffIDs[i])
		}
	}
	return s
}

// TestFrom finds that an image shares the layers of the one it stands on to the last
// bit, and stays whole when that one goes.
func TestFrom(t *testing.T) {
	below := write(t, nil, "a", "b")
	base := open(t, below)
	above := write(t, base, "c")
	if err := os.RemoveAll(below); err != nil {
		t.Fatal(err)
	}
	s := check(t, above)
	if len(s.Manifest.Layers) != 3 || len(s.Config.History) != 3 || !slices.Equal(s.Config.Config.Cmd, []string{"c"}) {
		t.Fatalf("%d layers, history of %d, command %q", len(s.Manifest.Layers), len(s.Config.History), s.Config.Config.Cmd)
	}
	for i, l := range base.Manifest.Layers {
		if s.Manifest.Layers[i].Digest != l.Digest || s.Config.RootFS.DiffIDs[i] != base.Config.RootFS.DiffIDs[i] {
			t.Errorf("layer %d is not that of the image below", i)
		}
	}
}

// TestRecompress finds other layers with the same tars below the same configuration,
// and the same ones each time.
func TestRecompress(t *testing.T) {
	dir := write(t, nil, strings.Repeat("a", 1<<20), strings.Repeat("many blocks ", 1<<17), "c")
	before := check(t, dir)
	for c, suffix := range map[images.Compression]string{images.Gzip: "+gzip", images.Zstd: "+zstd", images.None: ".tar"} {
		var targets []digest.Digest
		for range 2 {
			to := filepath.Join(t.TempDir(), "to")
			if err := images.Recompress(t.Context(), dir, to, c); err != nil {
				t.Fatal(err)
			}
			after := check(t, to)
			if after.Manifest.Config.Digest != before.Manifest.Config.Digest {
				t.Errorf("%s: configuration %s, want %s", suffix, after.Manifest.Config.Digest, before.Manifest.Config.Digest)
			}
			for _, l := range after.Manifest.Layers {
				if !strings.HasSuffix(l.MediaType, suffix) {
					t.Errorf("layer of type %s, want %s", l.MediaType, suffix)
				}
			}
			targets = append(targets, after.Target.Digest)
		}
		if targets[0] != targets[1] {
			t.Errorf("%s: not the same each time", suffix)
		}
	}
}

// TestRecompressDamaged finds that a damaged layer is not passed on.
func TestRecompressDamaged(t *testing.T) {
	dir := write(t, nil, "a", "b", "content")
	layer := open(t, dir).Manifest.Layers[2] // a plain tar
	path := filepath.Join(dir, "blobs", "sha256", layer.Digest.Encoded())
	text := strings.Replace(string(blob(t, dir, layer)), "content", "CONTENT", 1)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "to")
	if err := images.Recompress(t.Context(), dir, to, images.Gzip); err == nil || !strings.Contains(err.Error(), "layer 3") {
		t.Errorf("error %v, want one about layer 3", err)
	}
	if left, _ := filepath.Glob(to + "*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
}
