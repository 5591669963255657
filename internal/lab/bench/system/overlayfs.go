package system

import (
	"context"

	"github.com/hinshun/ipcs/internal/lab"
)

// overlayfs is containerd as it comes: layers are downloaded and unpacked whole.
type overlayfs struct {
	name    string
	variant string // of the image: "" for gzip layers, "+zstd"
}

func (o overlayfs) Name() string { return o.name }

func (o overlayfs) About() string {
	if o.variant == "" {
		return "containerd's overlayfs snapshotter with gzip layers: what most people run"
	}
	return "the same with zstd layers (level 3)"
}

func (overlayfs) Missing(context.Context, Programs) string { return "" }

func (o overlayfs) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	ref, err := site.Push(ctx, source.Image+o.variant, o.name)
	return &Image{Name: source.Image, Ref: ref}, err
}

func (o overlayfs) Start(ctx context.Context, m *lab.Machine, root string, _ Options) (*Host, error) {
	h := &Host{Machine: m, Snapshotter: "overlayfs"}
	return h.start(ctx, root, lab.ContainerdOptions{})
}
