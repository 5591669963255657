//go:build linux

package unpack_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// TestOrdinaryUpper makes ordinary layers of an upper directory, which are to the last bit what
// containerd makes of the two trees.
func TestOrdinaryUpper(t *testing.T) {
	l := newLab(t)
	lower, upper := l.folder("lower"), l.folder("upper")
	for _, name := range []string{"kept", "gone", "changed"} {
		l.must(os.WriteFile(filepath.Join(lower, name), []byte(name), 0o644))
	}
	mounts := l.overlay(upper, lower)
	l.mounted(mounts, func(root string) {
		l.must(os.Remove(filepath.Join(root, "gone")))
		l.must(os.WriteFile(filepath.Join(root, "changed"), []byte("other"), 0o600))
		l.must(os.MkdirAll(filepath.Join(root, "d/e"), 0o750))
		l.must(os.WriteFile(filepath.Join(root, "d/e/new"), bytes.Repeat([]byte("new"), 1<<20), 0o644))
	})
	for _, mediaType := range []string{ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip} {
		got, err := l.Compare(t.Context(), bind(lower), mounts, diff.WithMediaType(mediaType), diff.WithReference("ours"))
		l.must(err)
		want, err := walking.NewWalkingDiff(l.store).Compare(t.Context(), bind(lower), mounts, diff.WithMediaType(mediaType), diff.WithReference("theirs"))
		l.must(err)
		if a, b := l.untarred(got), l.untarred(want); !bytes.Equal(a, b) || got.MediaType != want.MediaType || len(a) == 0 {
			t.Errorf("%s: %d bytes of %s, want %d of %s", mediaType, len(a), got.MediaType, len(b), want.MediaType)
		}
		info, err := l.store.Info(t.Context(), got.Digest)
		l.must(err)
		if info.Size != got.Size || info.Labels["containerd.io/uncompressed"] == "" {
			t.Errorf("%s: the blob has %d bytes and labels %v", mediaType, info.Size, info.Labels)
		}
	}
}

// untarred reads the tar of an ordinary layer.
func (l *lab) untarred(desc ocispec.Descriptor) []byte {
	l.t.Helper()
	blob, err := content.ReadBlob(l.t.Context(), l.store, desc)
	l.must(err)
	r, err := compression.DecompressStream(bytes.NewReader(blob))
	l.must(err)
	defer r.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(r)
	l.must(err)
	return b.Bytes()
}
