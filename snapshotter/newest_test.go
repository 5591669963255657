//go:build linux

package snapshotter_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
	"github.com/hinshun/ipcs/snapshotter"
)

// newestLab is a lab beside containerd's own content store with its metadata.
type newestLab struct {
	*lab
	store content.Store
	calls chan asked
}

func newNewestLab(t *testing.T) *newestLab {
	l := newLab(t)
	blobs, err := local.NewStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(filepath.Join(t.TempDir(), "meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	n := &newestLab{l, metadata.NewDB(db, blobs, nil).ContentStore(), make(chan asked, 10)}
	l.config.Content, l.config.Prefetch, l.config.Fill = n.store, prefetcher{n.calls}, snapshotter.FillAnnotated
	l.restart()
	return n
}

// pulled has containerd know a manifest with these layers, in the namespace of the lab's keys.
func (n *newestLab) pulled(record cid.Cid, fill string, layers ...ipfs.Block) {
	n.t.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	labels := make(map[string]string)
	for i, root := range layers {
		d, err := mediatype.LayerDigest(root.Cid)
		if err != nil {
			n.t.Fatal(err)
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: mediatype.Layer, Digest: d, Size: int64(len(root.Data)), Annotations: map[string]string{
			mediatype.AnnotationRoot: root.Cid.String(), mediatype.AnnotationImage: record.String(), mediatype.AnnotationFill: fill,
		}})
		labels[fmt.Sprint("containerd.io/gc.ref.content.l.", i)] = d.String()
	}
	b, err := json.Marshal(m)
	if err != nil {
		n.t.Fatal(err)
	}
	n.write(namespaces.WithNamespace(n.ctx, "test"), b, labels)
}

func (n *newestLab) write(ctx context.Context, b []byte, labels map[string]string) {
	n.t.Helper()
	desc := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := content.WriteBlob(ctx, n.store, "manifest", bytes.NewReader(b), desc, content.WithLabels(labels)); err != nil {
		n.t.Fatal(err)
	}
}

// wants finds what is asked for when a container starts, in order: of the profile and, with
// fill, all.
func (n *newestLab) wants(parent string, fill bool, profile ...string) (key string) {
	n.t.Helper()
	key, _ = n.active(n.Snapshotter, parent)
	call := <-n.calls
	var want []cid.Cid
	for _, content := range profile {
		want = append(want, cidOf(n.t, content))
	}
	if call.priority != fetch.Profile || !slices.Equal(call.files, want) {
		n.t.Fatalf("asked for %v at priority %d, want %q", call.files, call.priority, profile)
	}
	if fill {
		if call := <-n.calls; call.priority != fetch.Fill || len(call.files) != 3 {
			n.t.Fatalf("asked for %v at priority %d, want all", call.files, call.priority)
		}
	}
	return key
}

// TestNewest pulls an image again, with the same layer and other hints: the newest are gone
// by, also while a container runs whose files are not all wanted, and those of other images with
// the layer are not.
func TestNewest(t *testing.T) {
	n := newNewestLab(t)
	root, upper := n.abcLayer(), n.convert(tarOf(t, []entry{file("d", "is d", 0o644)}))
	c := n.abc("is c")
	n.wants(c.parent, false, "is c")

	n.pulled(n.record(root, "is a"), "", root)
	n.wants(c.parent, false, "is a")
	n.pulled(n.record(root, "is b"), "", root, upper) // built on it
	n.pulled(n.record(root, "is b"), "", upper, root) // ends in it
	garbled := namespaces.WithNamespace(n.ctx, "test")
	d, err := mediatype.LayerDigest(root.Cid)
	if err != nil {
		t.Fatal(err)
	}
	n.write(garbled, []byte("no manifest"), map[string]string{"containerd.io/gc.ref.content.l.0": d.String()})
	n.wants(c.parent, false, "is a")

	n.pulled(n.record(root, "is b", "is c"), "true", root)
	filling := n.wants(c.parent, true, "is b", "is c")
	n.active(n.Snapshotter, c.parent) // what comes anyway is not asked for again
	n.restart()
	n.wants(c.parent, true, "is b", "is c")
	if len(n.calls) > 0 {
		t.Errorf("asked once more, for %v: %s", (<-n.calls).files, filling)
	}
}
