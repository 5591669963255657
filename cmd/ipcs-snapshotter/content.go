package main

import (
	"context"
	"log/slog"
	"path/filepath"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/internal/blobs"
)

// openContent opens the content store, which shares the store of objects and the fetcher with the snapshotter.
func (p *parts) openContent(ctx context.Context, cfg config, log *slog.Logger, started *closers) (err error) {
	kept := blobs.New(blobs.Options{Store: p.store, Fetcher: p.fetcher, Nodes: p.source, Node: p.node, Elsewhere: cfg.Node.Kubo != "", Logger: log})
	started.add("blobs", kept.Close)
	if p.content, err = content.Open(ctx, filepath.Join(cfg.Root, "content"), kept, content.Options{Logger: log}); err != nil {
		return err
	}
	started.add("content store", p.content.Close)
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
