package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/containerd/containerd/v2/core/diff"
	diffproxy "github.com/containerd/containerd/v2/core/diff/proxy"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"

	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// startDiff serves a differ that looks for containerd at address, and returns its client.
func startDiff(t *testing.T, dir, address string) diff.Applier {
	t.Helper()
	cfg := defaultConfig()
	cfg.State, cfg.Containerd.Address = dir, address
	conn := dial(t, address)
	d, err := startDiffer(cfg, conn, contentproxy.NewContentStore(conn), ipfstest.NewMemory(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	serveUnix(t, cfg.diffSocket(), diffServer(d))
	return diffproxy.NewDiffApplier(diffapi.NewDiffClient(dial(t, cfg.diffSocket()))).(diff.Applier)
}

// dial connects until the test ends.
func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := dialContainerd(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func serveUnix(t *testing.T, path string, s *grpc.Server) {
	t.Helper()
	l, err := listenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// fakeContent is a content store that has nothing, and keeps what a request says of itself.
type fakeContent struct {
	contentapi.UnimplementedContentServer
	asked chan [2]string // namespace and lease
}

func (f *fakeContent) Info(ctx context.Context, _ *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	namespace, _ := namespaces.Namespace(ctx)
	lease, _ := leases.FromContext(ctx)
	f.asked <- [2]string{namespace, lease}
	return nil, grpcstatus.Error(codes.NotFound, "nothing is here")
}

// TestDifferForwards finds that containerd is asked for content in the namespace of the
// request, and with its lease.
func TestDifferForwards(t *testing.T) {
	dir := t.TempDir()
	address := filepath.Join(dir, "containerd.sock")
	fake := &fakeContent{asked: make(chan [2]string, 1)}
	server := grpc.NewServer()
	contentapi.RegisterContentServer(server, fake)
	serveUnix(t, address, server)
	applier := startDiff(t, dir, address)
	ctx := leases.WithLease(namespaces.WithNamespace(t.Context(), "k8s.io"), "lease-1")
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("a layer"), Size: 7}
	if _, err := applier.Apply(ctx, desc, nil); !errdefs.IsNotFound(err) {
		t.Errorf("apply: %v, want that the content is not found", err)
	}
	if got := <-fake.asked; got != [2]string{"k8s.io", "lease-1"} {
		t.Errorf("containerd was asked with namespace and lease %q", got)
	}
}

// TestDifferWithoutContainerd starts while containerd does not run, and says so when it is
// needed.
func TestDifferWithoutContainerd(t *testing.T) {
	dir := t.TempDir()
	address := filepath.Join(dir, "containerd.sock")
	applier := startDiff(t, dir, address)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digest.FromString("a layer"), Size: 7}
	_, err := applier.Apply(namespaces.WithNamespace(t.Context(), "default"), desc, nil)
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), address) {
		t.Errorf("apply: %v, want that %s is unavailable", err, address)
	}
}
