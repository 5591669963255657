package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/internal/dockerlogin"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/pullsecrets"
	"github.com/hinshun/ipcs/ipfs"
)

// originConfig says where files come from that no peer has.
type originConfig struct {
	Registries   bool     `toml:"registries"`
	HostsDir     string   `toml:"hosts_dir"`
	DockerConfig string   `toml:"docker_config"`
	Layouts      []string `toml:"layouts"`
}

func (c originConfig) validate() error {
	for name, path := range map[string]string{"hosts_dir": c.HostsDir, "docker_config": c.DockerConfig} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("configuration: origin.%s must be an absolute path, not %q", name, path)
		}
	}
	for _, where := range c.Layouts {
		if _, err := origin.Layout(where); err != nil {
			return fmt.Errorf("configuration: origin.layouts: %w", err)
		}
	}
	return nil
}

// originPatience is how long a read waits for a registry that is away: it is better that a container waits than that it
// fails.
const originPatience = 3 * time.Minute

// credentialsTimeout is how long a helper of Docker's may take.
const credentialsTimeout = 10 * time.Second

// readTimeout is how long a read waits. What only peers have fails before, by the node's own timeout.
func (c config) readTimeout() time.Duration {
	if !c.Origin.Registries && len(c.Origin.Layouts) == 0 {
		return time.Duration(c.Node.Timeout)
	}
	return max(time.Duration(c.Node.Timeout), originPatience)
}

// criServer stands before containerd's image service of the CRI, to know what images are pulled with.
func (p *parts) criServer(containerd *grpc.ClientConn) *grpc.Server {
	s := grpc.NewServer()
	pullsecrets.Register(s, containerd, &p.secrets)
	return s
}

// openOrigin makes the source of blocks that peers, and what is configured, have. What this daemon serves as a registry is
// not asked.
func (p *parts) openOrigin(ctx context.Context, cfg originConfig, served registryConfig, log *slog.Logger, started *closers) error {
	options := origin.Options{Logger: log}
	if cfg.Registries {
		ctx := context.WithoutCancel(ctx)
		own := served.names()
		registries := origin.Registries{
			HostsDir: cfg.HostsDir, Own: served.own(),
			Credentials: func(host, repository string) (user, secret string, err error) {
				if user, secret := p.secrets.Lookup(host, repository); secret != "" {
					return user, secret, nil
				}
				ctx, cancel := context.WithTimeout(ctx, credentialsTimeout)
				defer cancel()
				return dockerlogin.Lookup(ctx, cfg.DockerConfig, host)
			},
		}
		options.Repository = func(name string, claimed bool) (origin.Place, error) {
			if host, _, _ := strings.Cut(name, "/"); slices.Contains(own, host) {
				return nil, nil // what it has, this node has
			}
			return registries.Repository(name, claimed)
		}
	}
	for _, where := range cfg.Layouts {
		place, err := origin.Layout(where)
		if err != nil {
			return err
		}
		options.Always = append(options.Always, place)
	}
	var err error
	if p.origin, err = origin.New(options); err != nil {
		return err
	}
	started.add("origin", p.origin.Close)
	p.source = origin.NewSource(p.node, p.origin)
	return nil
}

// An indexSource is where the snapshotter gets what layers are mounted by. What matters to it is
// what is on this machine, and not what else the node has.
type indexSource struct {
	*origin.Source
	node  node
	store *objects.Store
}

// Has implements ipfs.Local.
func (s indexSource) Has(ctx context.Context, c cid.Cid) (bool, error) { return s.store.Has(ctx, c) }

// Cache keeps blocks on this machine.
func (s indexSource) Cache(ctx context.Context, blocks ...ipfs.Block) error {
	return s.node.Cache(ctx, blocks...)
}
