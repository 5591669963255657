package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tree"
)

// TestCommit makes an image of what a container on an ipcs image changed, with what
// the Go client has for that, and runs it.
func TestCommit(t *testing.T) {
	layout := labtest.Image(t, "small")
	w := newWorld(t, "commit", 0)
	ref := w.convert(w.push(layout))
	w.pull(ref, "ipcs")
	ctx, done, err := w.containerd.Client.WithLease(w.containerd.Context(t.Context()))
	w.must(err)
	defer func() { w.must(done(context.WithoutCancel(ctx))) }()
	img, err := w.containerd.Client.GetImage(ctx, ref)
	w.must(err)

	v, err := w.containerd.Writable(ctx, ref, "ipcs")
	w.must(err)
	w.edit(v.Root)
	want, err := tree.Read(v.Root)
	w.must(err)
	w.must(v.Unmount())
	sn := w.containerd.Client.SnapshotService("ipcs")
	diff, err := rootfs.CreateDiff(ctx, v.Key(), sn, w.containerd.Client.DiffService())
	w.must(err)
	w.must(v.Close(ctx))

	committed, err := w.commit(ctx, img, diff)
	w.must(err)
	w.must(committed.Unpack(ctx, "ipcs"))
	w.sameButTimes(want, w.tree(committed.Name(), "ipcs"))
	if out := w.run("c", committed.Name(), "ipcs", "sh", "-c", "cat /srv/new && python3 -c 'print(6*7)'"); out != "new\n42\n" {
		t.Errorf("output %q", out)
	}
}

// edit changes a root file system as a container may.
func (w *world) edit(root string) {
	at := func(name string) string { return filepath.Join(root, name) }
	w.must(os.WriteFile(at("srv/new"), []byte("new\n"), 0o640))
	w.must(os.Chmod(at("usr/bin/env"), 0o700))
	w.must(os.Rename(at("etc/issue"), at("etc/issue.renamed")))
	w.must(os.RemoveAll(at("usr/share/doc")))
	w.must(os.Remove(at("etc/hostname")))
	w.must(os.Mkdir(at("usr/share/doc"), 0o755))
	w.must(os.WriteFile(at("usr/share/doc/README"), []byte("all gone\n"), 0o644))
}

// commit adds a layer to an image.
func (w *world) commit(ctx context.Context, img client.Image, layer ocispec.Descriptor) (client.Image, error) {
	store := img.ContentStore()
	info, err := store.Info(ctx, layer.Digest)
	if err != nil {
		return nil, err
	}
	diffID, err := digest.Parse(info.Labels["containerd.io/uncompressed"])
	if err != nil {
		return nil, fmt.Errorf("diffID of the new layer: %w", err)
	}
	manifest, err := images.Manifest(ctx, store, img.Target(), platforms.Default())
	if err != nil {
		return nil, err
	}
	config, err := img.Spec(ctx)
	if err != nil {
		return nil, err
	}
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
	config.History = append(config.History, ocispec.History{CreatedBy: "commit"})
	manifest.Layers = append(manifest.Layers, layer)
	if manifest.Config, err = writeJSON(ctx, store, manifest.Config.MediaType, config, nil); err != nil {
		return nil, err
	}
	labels := map[string]string{
		"containerd.io/gc.ref.content.config": manifest.Config.Digest.String(),
		"containerd.io/gc.ref.content.l.0":    layer.Digest.String(),
	}
	target, err := writeJSON(ctx, store, manifest.MediaType, manifest, labels)
	if err != nil {
		return nil, err
	}
	made, err := w.containerd.Client.ImageService().Create(ctx, images.Image{Name: "e2e/committed:latest", Target: target})
	if err != nil {
		return nil, err
	}
	return client.NewImage(w.containerd.Client, made), nil
}

// writeJSON puts v into the content store.
func writeJSON(ctx context.Context, store content.Store, mediaType string, v any, labels map[string]string) (ocispec.Descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	return desc, content.WriteBlob(ctx, store, desc.Digest.String(), bytes.NewReader(text), desc, content.WithLabels(labels))
}
