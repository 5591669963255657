package system

import (
	"context"

	"github.com/hinshun/ipcs/internal/lab"
)

// seeded is ipcs with the registry, which has the seeds of the image, and nobody else.
type seeded struct {
	name    string
	peers   bool // but for the publisher's node
	profile bool // of the measured command in the image, and filling
	fetches bool // all files after the pull
}

func (s seeded) Name() string { return s.name }

func (s seeded) About() string {
	switch {
	case s.peers && s.fetches:
		return "this project without a profile, where publisher and registry have all files: they are fetched by `ipcs-snapshotter fetch` after the pull"
	case s.peers:
		return "this project without a profile, where publisher and registry have what is read"
	case s.profile:
		return "the same with a profile of the measured command in the image, and all other files fetched in the background"
	case s.fetches:
		return "this project without a profile and without a publisher: all files are fetched from the registry by `ipcs-snapshotter fetch` after the pull"
	}
	return "this project without a profile and without any peer: what is read comes from the registry, which has the image's seeds"
}

func (seeded) Missing(context.Context, Programs) string { return "" }

// Publish converts the image on the publisher, whose node nobody is told of but where it is to be asked.
func (s seeded) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	if !s.profile {
		source.Command = ""
	}
	img, err := publishProfiled(ctx, site, source, s.name, "--seeds", "--peer-hint", "none")
	if err == nil && !s.peers {
		img.Peers = nil
	}
	return img, err
}

func (s seeded) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	daemon := lab.DaemonOptions{Peers: opts.Peers, Pprof: opts.Profile, Registries: []string{opts.Registry}}
	if s.profile {
		daemon.Fill = "on"
	}
	h, err := startIPCS(ctx, m, root, daemon)
	if err == nil {
		h.Fetches = s.fetches
	}
	return h, err
}
