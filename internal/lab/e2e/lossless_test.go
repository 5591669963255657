package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestLossless converts images there and back through a registry: config and diffIDs are
// those of the original, and stock containerd checks every one of them when it pulls what
// came back. What lies between is verified.
func TestLossless(t *testing.T) {
	layouts := append([]string{labtest.Image(t, "debian"), labtest.Image(t, "nasty")}, external(t)...)
	w := newWorld(t, "lossless", 0)
	for _, layout := range layouts {
		t.Run(filepath.Base(layout), func(t *testing.T) {
			w := w.with(t)
			original := w.push(layout)
			converted := w.convert(original)
			verified := w.verify(converted)
			for _, mediatype := range []string{"tar", "tar+zstd"} {
				back := strings.ReplaceAll(strings.TrimSuffix(converted, "ipcs")+mediatype, "+", "-")
				w.publish("--mediatype", mediatype, converted, back)
				want, wantIDs := w.config(original)
				got, gotIDs := w.config(back)
				if want != got || !equalDigests(wantIDs, gotIDs) {
					t.Errorf("%s: config %s, the original's is %s; diffIDs %v, want %v", mediatype, got, want, gotIDs, wantIDs)
				}
				for i, l := range verified.Layers {
					if l.DiffID != wantIDs[i] {
						t.Errorf("layer %d is verified to be %s, and is %s", i, l.DiffID, wantIDs[i])
					}
				}
			}
		})
	}
}

func equalDigests(a, b []digest.Digest) bool {
	text := func(ids []digest.Digest) string { return strings.Join(digestStrings(ids), " ") }
	return len(a) > 0 && text(a) == text(b)
}

func digestStrings(ids []digest.Digest) []string {
	var out []string
	for _, d := range ids {
		out = append(out, d.String())
	}
	return out
}

// publish runs convert on the publisher.
func (w *world) publish(args ...string) string {
	w.t.Helper()
	args = append([]string{"--plain-http", "--ipfs-api", w.source.API}, args...)
	out, err := lab.Output(w.publisher.Command(w.t.Context(), "convert", args...))
	w.must(err)
	return out
}

// verify has convert verify an image, and returns what it says of its only manifest.
func (w *world) verify(ref string) convert.VerifiedManifest {
	w.t.Helper()
	var report convert.VerifyReport
	w.must(json.Unmarshal([]byte(w.publish("--verify", "--json", ref)), &report))
	if len(report.Manifests) != 1 {
		w.t.Fatalf("%d manifests were verified", len(report.Manifests))
	}
	return report.Manifests[0]
}

// config pulls an image with overlayfs, and returns its config's digest and diffIDs.
func (w *world) config(ref string) (digest.Digest, []digest.Digest) {
	w.t.Helper()
	w.pull(ref, "overlayfs")
	ctx := w.containerd.Context(w.t.Context())
	img, err := w.containerd.Client.GetImage(ctx, ref)
	w.must(err)
	var manifest ocispec.Manifest
	manifest, err = images.Manifest(ctx, img.ContentStore(), img.Target(), platforms.Default())
	w.must(err)
	diffIDs, err := img.RootFS(ctx)
	w.must(err)
	return manifest.Config.Digest, diffIDs
}
