package system

import (
	"context"
	"path/filepath"

	"github.com/hinshun/ipcs/internal/lab"
)

// ipcs is this project: files come from the publisher's node when they are read.
type ipcs struct{}

func (ipcs) Name() string { return "ipcs" }

func (ipcs) About() string {
	return "this project without a profile: the publisher's embedded node serves, the consumer's fetches what is read"
}

func (ipcs) Missing(context.Context, Programs) string { return "" }

// Publish converts the image on the publisher, from the registry to the registry.
func (s ipcs) Publish(ctx context.Context, site *Site, image string) (*Image, error) {
	source, err := site.Push(ctx, image, "overlayfs")
	if err != nil {
		return nil, err
	}
	daemon, err := site.Daemon(ctx)
	if err != nil {
		return nil, err
	}
	ref := source + "-" + s.Name()
	if _, err := lab.Output(site.Publisher.Command(ctx, "convert", "--mediatype", "unixfs", "--plain-http",
		"--ipfs-api", daemon.API, source, ref)); err != nil {
		return nil, err
	}
	status, err := daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &Image{Name: image, Ref: ref, Peers: status.Addrs}, nil
}

func (ipcs) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	daemon, err := m.StartDaemon(ctx, lab.DaemonOptions{Root: root, Peers: opts.Peers, Pprof: opts.Profile})
	if err != nil {
		return nil, err
	}
	c, err := m.StartContainerd(ctx, lab.ContainerdOptions{Root: root + "-c", Daemon: daemon})
	if err != nil {
		return nil, err
	}
	return &Host{
		Machine: m, Containerd: c, Snapshotter: "ipcs", Daemon: daemon, Helpers: []*lab.Process{daemon.Process},
		Folders: []string{filepath.Join(m.Dir(), root+"-c"), daemon.Root()},
	}, nil
}
