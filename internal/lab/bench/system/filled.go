package system

import (
	"context"

	"github.com/hinshun/ipcs/internal/lab"
)

// filled is ipcs that fetches all files in the background, as it is configured by default.
type filled struct{ ipcs }

func (filled) Name() string { return "ipcs-fill" }

func (filled) About() string {
	return "this project without a profile, as the daemon is configured by default: all files are fetched in the background as soon as a container is made"
}

func (filled) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	h, err := startIPCS(ctx, m, root, lab.DaemonOptions{Peers: opts.Peers, Pprof: opts.Profile, Fill: "on"})
	if err == nil {
		h.Fills = true
	}
	return h, err
}
