package system

import (
	"context"
	"path/filepath"

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

func (o overlayfs) Publish(ctx context.Context, site *Site, image string) (*Image, error) {
	ref, err := site.Push(ctx, image+o.variant, o.name)
	return &Image{Name: image, Ref: ref}, err
}

func (o overlayfs) Start(ctx context.Context, m *lab.Machine, root string, _ Options) (*Host, error) {
	c, err := m.StartContainerd(ctx, lab.ContainerdOptions{Root: root + "-c"})
	if err != nil {
		return nil, err
	}
	return &Host{
		Machine: m, Containerd: c, Snapshotter: "overlayfs",
		Folders: []string{filepath.Join(m.Dir(), root+"-c")},
	}, nil
}
