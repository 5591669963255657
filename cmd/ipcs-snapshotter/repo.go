package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// repoVersion names the layout of the store to clients of IPFS, which only show it.
const repoVersion = "ipcs-repo@1"

// repo is the node as clients of IPFS see it: with what it keeps on the disk.
type repo struct {
	node
	store *objects.Store
	inUse func(ctx context.Context) (func(cid.Cid) bool, error) // what snapshots use
	path  string
}

func (p *parts) repo(cfg config) repo {
	return repo{p.node, p.store, p.snaps.InUse, filepath.Join(cfg.Root, "repo")}
}

// RepoStat says what the store counts for its limit.
func (r repo) RepoStat() kubo.RepoStat {
	space := r.store.Space()
	return kubo.RepoStat{
		Bytes: space.Used, Limit: space.Limit, Objects: r.store.Stats().Objects,
		Path: r.path, Version: repoVersion,
	}
}

// CollectGarbage removes objects that no pin and no layer in use needs, and calls removed with each.
func (r repo) CollectGarbage(ctx context.Context, removed func(cid.Cid)) error {
	used, err := r.inUse(ctx)
	if err != nil {
		return fmt.Errorf("collect garbage: nothing was removed: %w", err)
	}
	_, err = r.store.Collect(ctx, used, removed)
	return err
}
