package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// daemonSocket is where the daemon of this host answers.
const daemonSocket = "/run/ipcs/api.sock"

// nodeOptions say which node the files are put on.
type nodeOptions struct {
	api  string // address of a node's RPC
	repo string // folder of a repository
}

// openNode opens the node that was asked for, or that of the daemon.
func openNode(ctx context.Context, o nodeOptions) (ipfs.Node, error) {
	switch {
	case o.repo != "":
		return openRepo(o.repo)
	case o.api != "":
		return openAPI(ctx, o.api)
	}
	if _, err := os.Stat(daemonSocket); err != nil {
		return nil, fmt.Errorf("no IPFS node to put the files on: start ipcs-snapshotter, or pass --ipfs-api ADDRESS (auto for a Kubo), or --repo DIR to do without a daemon: %w", err)
	}
	return openAPI(ctx, "/unix"+daemonSocket)
}

// openAPI asks the daemon something, so that one which is not there is found out before
// any layer is begun.
func openAPI(ctx context.Context, addr string) (ipfs.Node, error) {
	c, err := kubo.New(addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Pins(ctx, "ipcs:none"); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// A repo is a node over a repository folder of which it is the only user.
type repo struct {
	*embedded.Node
	store *objects.Store
}

func openRepo(dir string) (ipfs.Node, error) {
	store, err := objects.Open(dir, objects.Options{})
	if err != nil {
		return nil, err
	}
	return &repo{Node: embedded.Offline(store), store: store}, nil
}

// Close closes the node before its store.
func (r *repo) Close() error {
	return errors.Join(r.Node.Close(), r.store.Close())
}
