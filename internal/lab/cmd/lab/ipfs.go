package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// repository is where the Kubo of "make ipfs" keeps what it has, from run to run.
func repository(cache string) (string, error) { return filepath.Abs(filepath.Join(cache, "ipfs")) }

// runIPFS runs a Kubo that knows nobody until ctx ends.
func runIPFS(ctx context.Context, opts lab.Options, cache string) (err error) {
	opts.Name, opts.Rate = "ipfs", 0
	repo, err := repository(cache)
	if err != nil {
		return err
	}
	l, err := lab.Open(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close(), l.Leftovers()) }()
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return err
	}
	k, err := m.StartKubo(ctx, lab.KuboOptions{Repo: repo})
	if err != nil {
		return err
	}
	tools, err := filepath.Abs(opts.Tools)
	if err != nil {
		return err
	}
	fmt.Printf(`Kubo runs. It looks for no other node, and nobody reaches it from elsewhere:
    RPC          %[2]s
    node         %[3]s
    gateway      http://%[4]s
    repository   %[1]s, which stays when it ends
As the node of ipcs-snapshotter, in /etc/ipcs/config.toml:
    [node]
    kubo = "%[1]s"
To convert an image onto it, and to see what is pinned:
    convert --mediatype unixfs --ipfs-api %[1]s SOURCE TARGET
    IPFS_PATH=%[1]s %[5]s/ipfs pin ls --names --type=recursive
"make containerd" and "make convert", in other terminals, use it while it runs. Ctrl-C stops it.
`, repo, k.API, k.Peer, k.Gateway, tools)
	select {
	case <-ctx.Done():
		fmt.Println("\nstopping")
		return k.Stop()
	case <-k.Done():
		return fmt.Errorf("kubo ended:%s", k.Tail())
	}
}

// runningKubo returns the address of the Kubo of runIPFS, or "" if none runs.
func runningKubo(ctx context.Context, cache string) (string, error) {
	repo, err := repository(cache)
	if err != nil {
		return "", err
	}
	c, err := kubo.New(repo)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_, err = c.Pins(ctx, "none")
	if errors.Is(err, kubo.ErrNoDaemon) {
		return "", nil
	}
	return repo, err
}
