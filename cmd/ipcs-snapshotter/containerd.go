package main

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/containerd/v2/contrib/diffservice"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	leasesproxy "github.com/containerd/containerd/v2/core/leases/proxy"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hinshun/ipcs/unpack"
)

// maxBackoff is how long a containerd that was away may go unnoticed when it is back.
const maxBackoff = 3 * time.Second

// startDiffer makes the differ, which works in containerd's content store, and leaves layers
// to the snapshotter where that has them mounted.
func startDiffer(cfg config, conn *grpc.ClientConn, blobs content.Store, node unpack.Node, snaps unpack.Adopter, log *slog.Logger) (*unpack.Differ, error) {
	if err := prepareTempMounts(filepath.Join(cfg.State, "unpack"), log); err != nil {
		return nil, err
	}
	return unpack.New(unpack.Config{
		Node:    node,
		Content: blobs,
		Leases:  leasesproxy.NewLeaseManager(leasesapi.NewLeasesClient(conn)),
		Adopter: snaps,
		Logger:  log,
	})
}

// prepareTempMounts says where containerd's library mounts what is unpacked or compared, and
// unmounts what a daemon that was killed has left there.
func prepareTempMounts(dir string, log *slog.Logger) error {
	if err := mount.SetTempMountLocation(dir); err != nil {
		return fmt.Errorf("make folder for temporary mounts: %w", err)
	}
	warnings, err := mount.CleanupTempMounts(0)
	if err != nil {
		return fmt.Errorf("clean up temporary mounts in %s: %w", dir, err)
	}
	for _, w := range warnings {
		log.Warn("temporary mount is left", "dir", dir, "error", w)
	}
	return nil
}

// dialContainerd returns a connection to containerd's socket with the limits that
// containerd's own clients have. containerd need not run: it starts after this daemon, and
// the connection is made when it is first used.
func dialContainerd(address string) (*grpc.ClientConn, error) {
	retry := backoff.DefaultConfig
	retry.MaxDelay = maxBackoff
	conn, err := grpc.NewClient("unix://"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(defaults.DefaultMaxRecvMsgSize),
			grpc.MaxCallSendMsgSize(defaults.DefaultMaxSendMsgSize)))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w; set containerd.address to its socket", address, err)
	}
	return conn, nil
}

// diffServer returns the server of the differ. When it is stopped, it waits for what is
// being unpacked: that has mounts, and uses the node.
func diffServer(d *unpack.Differ) *grpc.Server {
	s := grpc.NewServer(grpc.UnaryInterceptor(forwardHeaders), grpc.WaitForHandlers(true))
	diffapi.RegisterDiffServer(s, diffservice.FromApplierAndComparer(d, d))
	return s
}

// forwardHeaders makes the namespace and the lease of a request those of the requests that
// are made to containerd on its behalf.
func forwardHeaders(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if namespace, ok := namespaces.Namespace(ctx); ok {
		ctx = namespaces.WithNamespace(ctx, namespace)
	}
	if lease, ok := leases.FromContext(ctx); ok {
		ctx = leases.WithLease(ctx, lease)
	}
	return handler(ctx, req)
}
