package system

import (
	"context"

	"github.com/hinshun/ipcs/internal/lab"
)

// forced is ipcs as it mounts on kernels that cannot do better, which this one can.
type forced struct {
	ipcs
	variant, about string
	image, data    string // mounts.image and mounts.data
}

// fallbacks are all of them.
func fallbacks() []System {
	return []System{
		forced{variant: "loop", about: "this project with the EROFS images on loop devices, as before Linux 6.12", image: "loop"},
		forced{variant: "metacopy", about: "this project with overlays that have metacopy=on, as before Linux 6.16", data: "metacopy"},
		forced{variant: "hidden", about: "this project with the files in ordinary layers that a whiteout hides, and loop devices, as before Linux 6.5", image: "loop", data: "hidden"},
		forced{variant: "fuse", about: "this project with the metadata of images over FUSE, as where EROFS cannot be mounted", image: "fuse"},
		forced{variant: "served", about: "this project with metadata and files over FUSE, as in user namespaces before Linux 6.16", image: "fuse", data: "served"},
	}
}

func (f forced) Name() string { return "ipcs-" + f.variant }

func (f forced) About() string { return f.about }

func (f forced) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	return startIPCS(ctx, m, root, lab.DaemonOptions{Peers: opts.Peers, Pprof: opts.Profile, Image: f.image, Data: f.data})
}
