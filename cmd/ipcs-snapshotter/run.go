package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/profile"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/kubo"
	"github.com/hinshun/ipcs/snapshotter"
)

// stopTimeout is how long requests that are under way may take when the daemon stops.
const stopTimeout = 5 * time.Second

// closers are what was started; close stops it in the reverse order.
type closers []func() error

func (c *closers) add(what string, close func() error) {
	*c = append(*c, func() error {
		if err := close(); err != nil {
			return fmt.Errorf("close %s: %w", what, err)
		}
		return nil
	})
}

func (c closers) close() error {
	var errs []error
	for i := len(c) - 1; i >= 0; i-- {
		errs = append(errs, c[i]())
	}
	return errors.Join(errs...)
}

// parts is the running daemon, as the status sees it.
type parts struct {
	store   *objects.Store
	node    *embedded.Node
	fetcher *fetch.Fetcher
	snaps   *snapshotter.Snapshotter
}

// run starts the daemon, says that it is ready, and stops it when ctx is done.
func run(ctx context.Context, cfg config) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.LogLevel}))
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root: run it as root (sudo ipcs-snapshotter)")
	}
	var started closers
	defer func() { err = errors.Join(err, started.close()) }()
	for _, dir := range []string{cfg.Root, cfg.State} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	// The lock and the sockets first: a daemon that runs already is then found before
	// anything of its is touched.
	lock, err := lockDir(cfg.State)
	if err != nil {
		return err
	}
	started.add("lock", lock.Close)
	snapsListener, err := listenUnix(cfg.snapshotterSocket())
	if err != nil {
		return err
	}
	started.add("snapshotter socket", ignoreClosed(snapsListener))
	apiListener, err := listenUnix(cfg.apiSocket())
	if err != nil {
		return err
	}
	started.add("API socket", ignoreClosed(apiListener))
	stop, err := profile.Start(cfg.pprof)
	if err != nil {
		return err
	}
	started.add("profiles", stop)

	p, err := start(ctx, cfg, log, &started)
	if err != nil {
		return err
	}
	return serve(ctx, log, p, snapsListener, apiListener)
}

// start opens everything below the servers, lowest first.
func start(ctx context.Context, cfg config, log *slog.Logger, started *closers) (*parts, error) {
	var p parts
	var err error
	if p.store, err = objects.Open(filepath.Join(cfg.Root, "repo"), objects.Options{Logger: log}); err != nil {
		return nil, err
	}
	started.add("store", p.store.Close)
	timeout := time.Duration(cfg.Node.Timeout)
	if p.node, err = embedded.Open(ctx, embedded.Config{
		Listen:   cfg.Node.Listen,
		Peers:    cfg.Node.Peers,
		KeyFile:  filepath.Join(cfg.Root, "identity.key"),
		SwarmKey: cfg.Node.SwarmKey,
		Timeout:  timeout,
		Logger:   log,
	}, p.store); err != nil {
		return nil, err
	}
	started.add("node", p.node.Close)
	p.fetcher = fetch.New(p.store, p.node, fetch.Options{Timeout: timeout, Logger: log})
	started.add("fetcher", p.fetcher.Close)
	p.snaps, err = snapshotter.New(ctx, snapshotter.Config{
		Root:         filepath.Join(cfg.Root, "snapshotter"),
		State:        filepath.Join(cfg.State, "mounts"),
		ObjectsDir:   p.store.ObjectsDir(),
		IndexTimeout: timeout,
		Logger:       log,
	}, p.node, func(dir string, files snapshotter.Files) (snapshotter.Lazy, error) {
		server, err := lazyfs.Mount(dir, files, p.fetcher, lazyfs.Options{Logger: log})
		if err != nil {
			return nil, err
		}
		return lazyServer{server}, nil
	})
	if err != nil {
		return nil, err
	}
	started.add("snapshotter", p.snaps.Close)
	return &p, nil
}

// serve answers on both sockets until ctx is done or one of them fails.
func serve(ctx context.Context, log *slog.Logger, p *parts, snapsListener, apiListener net.Listener) error {
	snaps := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(snaps, snapshotservice.FromSnapshotter(p.snaps))
	mux := http.NewServeMux()
	mux.Handle("/api/v0/", kubo.NewHandler(p.node, p.node, log))
	mux.Handle("GET "+statusPath, statusHandler(p, log))
	api := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}

	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return snaps.Serve(snapsListener) })
	group.Go(func() error {
		if err := api.Serve(apiListener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-gctx.Done()
		notify(log, daemon.SdNotifyStopping)
		return stopServers(context.WithoutCancel(gctx), snaps, api)
	})
	notify(log, daemon.SdNotifyReady)
	log.Info("ready", "snapshotter", snapsListener.Addr().String(), "api", apiListener.Addr().String(), "id", p.node.ID(), "addrs", p.node.Addrs())
	err := group.Wait()
	log.Info("stopping")
	return err
}

// stopServers lets requests that are under way end, for a while.
func stopServers(ctx context.Context, snaps *grpc.Server, api *http.Server) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		snaps.GracefulStop()
	}()
	err := api.Shutdown(ctx)
	if err != nil {
		err = api.Close()
	}
	select {
	case <-graceful:
	case <-ctx.Done():
		snaps.Stop()
		<-graceful
	}
	return err
}

// notify tells systemd, where there is one, how the daemon stands.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not told", "state", state, "error", err)
	}
}

// lazyServer is a snapshotter.Lazy.
type lazyServer struct{ *lazyfs.Server }

func (s lazyServer) Close() error { return s.Unmount() }

// ignoreClosed closes a listener that its server may have closed before.
func ignoreClosed(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
