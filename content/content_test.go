package content_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	ctd "github.com/containerd/containerd/v2/core/content"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/content/testsuite"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/defaults"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/services/content/contentserver"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/hinshun/ipcs/content/contenttest"
)

// TestSuite is containerd's own suite, on an embedded node, itself and over gRPC, as containerd uses it.
func TestSuite(t *testing.T) {
	testsuite.ContentSuite(t, "direct", func(ctx context.Context, dir string) (context.Context, ctd.Store, func() error, error) {
		h, err := contenttest.OpenEmbedded(ctx, dir)
		if err != nil {
			return nil, nil, nil, err
		}
		return ctx, h.Store, h.Close, nil
	})
	t.Run("Proxy", func(t *testing.T) {
		testsuite.ContentSuite(t, "proxy", func(ctx context.Context, dir string) (context.Context, ctd.Store, func() error, error) {
			store, closed, err := openProxy(ctx, dir)
			return ctx, store, closed, err
		})
	})
}

// TestNamespaces is containerd's suites of what its namespaces share, with its own database above this store.
func TestNamespaces(t *testing.T) {
	with := func(opts ...metadata.DBOpt) testsuite.StoreInitFn {
		return func(ctx context.Context, dir string) (context.Context, ctd.Store, func() error, error) {
			return openMetadata(ctx, dir, opts...)
		}
	}
	t.Run("Shared", func(t *testing.T) {
		testsuite.ContentSuite(t, "metadata", with())
		testsuite.ContentCrossNSSharedSuite(t, "metadata", with())
	})
	t.Run("Isolated", func(t *testing.T) {
		testsuite.ContentCrossNSIsolatedSuite(t, "isolated", with(metadata.WithPolicyIsolated))
		testsuite.ContentSharedNSIsolatedSuite(t, "shared-isolated", with(metadata.WithPolicyIsolated))
	})
}

// openProxy returns a store that is behind a socket.
func openProxy(ctx context.Context, dir string) (ctd.Store, func() error, error) {
	h, err := contenttest.OpenEmbedded(ctx, dir)
	if err != nil {
		return nil, nil, err
	}
	l, err := net.Listen("unix", filepath.Join(dir, "content.sock"))
	if err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(defaults.DefaultMaxRecvMsgSize))
	contentapi.RegisterContentServer(server, contentserver.New(h.Store))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	closed := func() error {
		err := conn.Close()
		server.Stop()
		return errors.Join(err, <-served, h.Close())
	}
	return contentproxy.NewContentStore(conn), closed, err
}

// openMetadata returns a proxied store under containerd's database.
func openMetadata(ctx context.Context, dir string, opts ...metadata.DBOpt) (context.Context, ctd.Store, func() error, error) {
	store, closed, err := openProxy(ctx, dir)
	if err != nil {
		return nil, nil, nil, err
	}
	db, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, nil)
	if err != nil {
		return nil, nil, nil, errors.Join(err, closed())
	}
	m := metadata.NewDB(db, store, nil, opts...)
	if err := m.Init(ctx); err != nil {
		return nil, nil, nil, errors.Join(err, db.Close(), closed())
	}
	var count atomic.Int64
	wrap := func(ctx context.Context, shared bool) (context.Context, func(context.Context) error, error) {
		n := count.Add(1)
		ctx = namespaces.WithNamespace(ctx, fmt.Sprintf("n%d", n))
		if shared {
			err := db.Update(func(tx *bolt.Tx) error {
				ns, _ := namespaces.Namespace(ctx)
				return metadata.NewNamespaceStore(tx).Create(ctx, ns, map[string]string{"containerd.io/namespace.shareable": "true"})
			})
			if err != nil {
				return nil, nil, err
			}
		}
		manager := metadata.NewLeaseManager(m)
		lease, err := manager.Create(ctx, leases.WithRandomID())
		if err != nil {
			return nil, nil, err
		}
		ctx = leases.WithLease(ctx, lease.ID)
		return ctx, func(ctx context.Context) error { return manager.Delete(ctx, lease) }, nil
	}
	ctx = testsuite.SetContextWrapper(ctx, wrap)
	return ctx, m.ContentStore(), func() error { return errors.Join(db.Close(), closed()) }, nil
}
