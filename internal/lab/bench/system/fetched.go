package system

import (
	"context"

	"github.com/hinshun/ipcs/internal/lab"
)

// fetched is ipcs whose files are all fetched by a command after the pull.
type fetched struct{ ipcs }

func (fetched) Name() string { return "ipcs-fetch" }

func (fetched) About() string {
	return "this project without a profile: all files are fetched at once by `ipcs-snapshotter fetch` after the pull"
}

func (fetched) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	h, err := startIPCS(ctx, m, root, lab.DaemonOptions{Peers: opts.Peers, Pprof: opts.Profile})
	if err == nil {
		h.Fetches = true
	}
	return h, err
}
