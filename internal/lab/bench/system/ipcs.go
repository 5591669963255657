package system

import (
	"context"

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
func (s ipcs) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	img := &Image{Name: source.Image}
	var err error
	img.Peers, err = site.into(ctx, func(api string) (err error) {
		img.Ref, err = convert(ctx, site, source.Image, s.Name(), api)
		return err
	})
	return img, err
}

// convert converts an image of the registry on the publisher, onto the node at api, and
// returns its reference.
func convert(ctx context.Context, site *Site, image, system, api string, more ...string) (ref string, err error) {
	source, err := site.Push(ctx, image, "overlayfs")
	if err != nil {
		return "", err
	}
	ref = source + "-" + system
	args := append([]string{"--mediatype", "unixfs", "--plain-http", "--ipfs-api", api, "--seeds=false"}, more...)
	if dir := site.Profile("convert-" + image + "-" + system); dir != "" {
		args = append(args, "--pprof", dir)
	}
	_, err = lab.Output(site.Publisher.Command(ctx, "convert", append(args, source, ref)...))
	return ref, err
}

func (ipcs) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	return startIPCS(ctx, m, root, lab.DaemonOptions{Peers: opts.Peers, Pprof: opts.Profile})
}

func startIPCS(ctx context.Context, m *lab.Machine, root string, opts lab.DaemonOptions) (*Host, error) {
	opts.Root = root
	daemon, err := m.StartDaemon(ctx, opts)
	if err != nil {
		return nil, err
	}
	h := &Host{
		Machine: m, Snapshotter: "ipcs", Daemon: daemon, Helpers: []*lab.Process{daemon.Process},
		Lazy:    true,
		Folders: []string{daemon.Root()},
	}
	return h.start(ctx, root, lab.ContainerdOptions{Daemon: daemon})
}
