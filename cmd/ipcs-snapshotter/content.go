package main

import (
	"context"
	"log/slog"
	"path/filepath"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	"github.com/ipfs/go-cid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/internal/blobs"
	"github.com/hinshun/ipcs/internal/mirror"
	"github.com/hinshun/ipcs/internal/origin"
)

type contentConfig struct {
	Share mirror.Share `toml:"share"`
}

// openMirror makes what images come from peers by. It has nothing, and peers get no blobs, until openContent.
func (p *parts) openMirror(cfg config, log *slog.Logger) (err error) {
	registries := origin.Registries{HostsDir: cfg.Origin.HostsDir, Own: cfg.Registry.own()}
	p.mirror, err = mirror.New(mirror.Options{
		Public: func(name string) (mirror.Public, error) { return registries.Public(name) },
		Needs: func(c cid.Cid) (bool, error) {
			return p.store.Needs(c, func(pin string) bool { return !content.IsPin(pin) })
		},
		Share: cfg.Content.Share, Logger: log,
	})
	return err
}

// openContent opens the content store, which shares the store of objects and the fetcher with the snapshotter.
func (p *parts) openContent(ctx context.Context, cfg config, log *slog.Logger, started *closers) (err error) {
	kept := blobs.New(blobs.Options{Store: p.store, Fetcher: p.fetcher, Nodes: p.source, Node: p.node, Elsewhere: cfg.Node.Kubo != "", Logger: log})
	started.add("blobs", kept.Close)
	if p.content, err = content.Open(ctx, filepath.Join(cfg.Root, "content"), kept, content.Options{Logger: log, Committed: p.mirror.Committed}); err != nil {
		return err
	}
	started.add("content store", p.content.Close)
	var peers mirror.Peers
	if n, embedded := p.node.(embeddedNode); embedded {
		peers = n
	}
	p.mirror.Use(p.content, kept, peers)
	started.add("mirror", p.mirror.Close)
	return nil
}

// nearContent is containerd's content. What of it is in this daemon's store is read there, and not by way of containerd.
type nearContent struct {
	ctd.Store
	own *content.Store
}

// ReaderAt implements content.Provider.
func (c nearContent) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (ctd.ReaderAt, error) {
	if r, err := c.own.ReaderAt(ctx, desc); err == nil {
		return r, nil
	}
	return c.Store.ReaderAt(ctx, desc)
}

// contentServer returns the server of the content store. When it is stopped it waits for what is being read or written: that uses the node.
func contentServer(s *content.Store) *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
		grpc.MaxSendMsgSize(defaults.DefaultMaxSendMsgSize),
		grpc.WaitForHandlers(true))
	contentapi.RegisterContentServer(server, contentserver.New(s))
	return server
}
