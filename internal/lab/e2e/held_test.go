package e2e

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/image-spec/identity"
)

// lazyBytes is far more than an image has without its layers, and far less than the
// smallest layer of the demo's image.
const lazyBytes = 64 << 10

// held asks what containerd holds of an image in one of its namespaces.
type held struct {
	w              *world
	namespace, ref string
}

func (w *world) in(namespace, ref string) held { return held{w, namespace, ref} }

func (h held) context() context.Context {
	return namespaces.WithNamespace(h.w.t.Context(), h.namespace)
}

// on finds that the image's snapshots are in one snapshotter, and in no other.
func (h held) on(snapshotter string) {
	h.w.t.Helper()
	ctx := h.context()
	img, err := h.w.containerd.Client.GetImage(ctx, h.ref)
	h.w.must(err)
	diffIDs, err := img.RootFS(ctx)
	h.w.must(err)
	for i := range diffIDs {
		chain := identity.ChainID(diffIDs[:i+1]).String()
		for _, name := range []string{"ipcs", "overlayfs"} {
			_, err := h.w.containerd.Client.SnapshotService(name).Stat(ctx, chain)
			if name == snapshotter && err != nil || name != snapshotter && !errdefs.IsNotFound(err) {
				h.w.t.Errorf("%s of layer %d in %s: %v", h.ref, i+1, name, err)
			}
		}
	}
}

// lazy finds that the image is on ipcs, with all its blobs in the content store, which are
// layer roots and hold no files.
func (h held) lazy() {
	h.w.t.Helper()
	ctx := h.context()
	h.on("ipcs")
	store := h.w.containerd.Client.ContentStore()
	img, err := h.w.containerd.Client.GetImage(ctx, h.ref)
	h.w.must(err)
	manifest, err := images.Manifest(ctx, store, img.Target(), platforms.Default())
	h.w.must(err)
	for i, layer := range manifest.Layers {
		if _, err := store.Info(ctx, layer.Digest); err != nil {
			h.w.t.Errorf("the blob of layer %d: %v", i+1, err)
		}
	}
	var total int64
	h.w.must(store.Walk(ctx, func(info content.Info) error {
		total += info.Size
		return nil
	}))
	h.w.t.Logf("%s: %d bytes in the content store", h.ref, total)
	if total > lazyBytes {
		h.w.t.Errorf("%d bytes in the content store; want at most %d", total, lazyBytes)
	}
}

// gone finds that the namespace holds nothing.
func (h held) gone() {
	h.w.t.Helper()
	ctx := h.context()
	list, err := h.w.containerd.Client.ImageService().List(ctx)
	h.w.must(err)
	for _, img := range list {
		h.w.t.Errorf("image %s is left", img.Name)
	}
	for _, name := range []string{"ipcs", "overlayfs"} {
		err := h.w.containerd.Client.SnapshotService(name).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			h.w.t.Errorf("%s: snapshot %s is left", name, info.Name)
			return nil
		})
		h.w.must(err)
	}
	h.w.must(h.w.containerd.Client.ContentStore().Walk(ctx, func(info content.Info) error {
		h.w.t.Errorf("blob %s is left", info.Digest)
		return nil
	}))
}
