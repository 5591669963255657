// Package nodes opens the node that a command uses: that of the daemon on this host, another one by its RPC, or a repository.
//
// It has no state, and starts nothing but what it returns.
package nodes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// DaemonSocket is where the daemon of this host answers.
const DaemonSocket = "/run/ipcs/api.sock"

// Options say which node it is: at most one of them.
type Options struct {
	API  string // address of a node's RPC
	Repo string // folder of a repository
}

// Register adds --ipfs-api and --repo.
func (o *Options) Register(flags *pflag.FlagSet) {
	flags.StringVar(&o.API, "ipfs-api", "", "`address` of an IPFS node: auto (the Kubo of $IPFS_PATH or ~/.ipfs), the path of a socket or of Kubo's repository, a multiaddr or a URL (default "+DaemonSocket+" if it is there)")
	flags.StringVar(&o.Repo, "repo", "", "repository `folder` to use without a daemon")
}

// openTime is how long a node may take to answer.
const openTime = 30 * time.Second

// ErrNone says that no node was named, and that no daemon runs here.
var ErrNone = errors.New("no IPFS node: start ipcs-snapshotter, or pass --ipfs-api ADDRESS (auto for a Kubo), or --repo DIR to do without a daemon")

// Open opens the node that was asked for, or that of the daemon. The error is ErrNone, wrapped, if there is neither.
func Open(ctx context.Context, o Options) (ipfs.Node, error) {
	switch {
	case o.Repo != "":
		return openRepo(o.Repo)
	case o.API != "":
		return openAPI(ctx, o.API)
	}
	if _, err := os.Stat(DaemonSocket); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return openAPI(ctx, "/unix"+DaemonSocket)
}

// openAPI asks the daemon something, so that one which is not there is found out before
// any layer is begun.
func openAPI(ctx context.Context, addr string) (ipfs.Node, error) {
	c, err := kubo.New(addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
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
