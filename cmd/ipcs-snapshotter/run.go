package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	contentproxy "github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/memory"
	"github.com/hinshun/ipcs/internal/mirror"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/origin"
	"github.com/hinshun/ipcs/internal/packs"
	"github.com/hinshun/ipcs/internal/processors"
	"github.com/hinshun/ipcs/internal/profile"
	"github.com/hinshun/ipcs/internal/pullsecrets"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/kubo"
	"github.com/hinshun/ipcs/snapshotter"
	"github.com/hinshun/ipcs/unpack"
)

// smallHeap is what the daemon may take before it collects garbage more often than Go does
// by itself: what it holds of large images has no pointers.
const smallHeap = 64 << 20

// stopTimeout is how long requests that are under way may take when the daemon stops.
const stopTimeout = 5 * time.Second

// errRelay ends a daemon that can serve nothing any more.
var errRelay = errors.New("the process that holds the FUSE mount is gone, and with it what running containers have not read yet: start them again")

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
	packs   *packs.Packs // nil: no compressed forms are kept
	store   *objects.Store
	node    node
	origin  *origin.Origin
	source  *origin.Source // the node, and the origin
	fetcher *fetch.Fetcher
	lazy    *lazyfs.Server
	spare   string // socket of who keeps the device of lazy files
	snaps   *snapshotter.Snapshotter
	differ  *unpack.Differ
	content *content.Store
	mirror  *mirror.Mirror
	tasks   tasksapi.TasksClient // of containerd
	secrets pullsecrets.Secrets
	cri     *grpc.Server

	asked atomic.Pointer[snapshotter.Snapshotter] // snaps, for who may ask before it is there
}

// run starts the daemon, says that it is ready, and stops it when ctx is done.
func run(ctx context.Context, cfg config) (err error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.LogLevel}))
	memory.Follow(smallHeap)
	if os.Geteuid() != 0 {
		return errors.New("mounting needs root: run it as root (sudo ipcs-snapshotter), or as root of the user namespace that a rootless containerd runs in (README, \"Rootless\")")
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
	lock, err := lockDir(ctx, cfg.State)
	if err != nil {
		return err
	}
	started.add("lock", lock.Close)
	socks, err := listen(ctx, cfg, &started)
	if err != nil {
		return err
	}
	stop, err := profile.Start(cfg.pprof)
	if err != nil {
		return err
	}
	started.add("profiles", stop)

	p, err := start(ctx, cfg, log, &started)
	if err != nil {
		return err
	}
	return serve(ctx, cfg, log, p, socks)
}

// start opens everything below the servers, lowest first.
func start(ctx context.Context, cfg config, log *slog.Logger, started *closers) (*parts, error) {
	p := new(parts)
	var err error
	if err = p.openStore(cfg, log, started); err != nil {
		return nil, err
	}
	if p.node, err = p.openNode(ctx, cfg, log); err != nil {
		return nil, err
	}
	started.add("node", p.node.Close)
	if err := p.openOrigin(ctx, cfg.Origin, cfg.Registry, log, started); err != nil {
		return nil, err
	}
	options := fetch.Options{
		Timeout: cfg.readTimeout(), FillRate: int64(cfg.Fetch.FillRate), Opens: cfg.Metrics.Address != "", Logger: log,
	}
	if meter, err := processors.New(); err != nil {
		log.Warn("cannot tell whether the processors are busy; images are filled beside what computes", "error", err)
	} else {
		options.Busy = meter.Busy
	}
	p.startFetcher(options, started)
	if err := p.openContent(ctx, cfg, log, started); err != nil {
		return nil, err
	}
	containerd, err := dialContainerd(cfg.Containerd.Address)
	if err != nil {
		return nil, err
	}
	started.add("connection to containerd", containerd.Close)
	p.tasks, p.cri = tasksapi.NewTasksClient(containerd), p.criServer(containerd)
	images := &imageServer{state: cfg.State, listen: listenPackets(ctx)}
	started.add("connection to the server of images", images.close)
	contents := contentproxy.NewContentStore(containerd)
	snaps := p.snapshots(cfg, contents, log)
	snaps.ServeImage = images.mount
	p.snaps, err = snapshotter.New(ctx, snaps, indexSource{p.source, p.node, p.store}, func(dir string, files snapshotter.Files) (snapshotter.Lazy, error) {
		p.lazy, err = p.serveLazy(ctx, cfg, dir, files, log)
		return p.lazy, err
	})
	if err != nil {
		return nil, err
	}
	started.add("snapshotter", p.snaps.Close)
	p.asked.Store(p.snaps)
	p.store.Limit(int64(cfg.Store.Limit), p.indexes(ctx, log))
	if p.differ, err = startDiffer(cfg, containerd, nearContent{contents, p.content}, p.node, p.snaps, log); err != nil {
		return nil, err
	}
	return p, nil
}

// startFetcher starts what fetches files. Peers of an embedded node get what is coming, too.
func (p *parts) startFetcher(options fetch.Options, started *closers) {
	n, embedded := p.node.(embeddedNode)
	if embedded {
		options.Arrived = n.Arrived
	}
	p.fetcher = fetch.New(p.store, p.source, options)
	started.add("fetcher", p.fetcher.Close)
	if embedded {
		n.ServeAlso(p.fetcher)
		started.add("leaves for peers", func() error {
			n.ServeAlso(nil)
			return nil
		})
	}
}

// serveLazy serves lazy files at dir.
func (p *parts) serveLazy(ctx context.Context, cfg config, dir string, files snapshotter.Files, log *slog.Logger) (*lazyfs.Server, error) {
	p.spare = spareSocket(cfg.relaySocket())
	client, err := connectRelay(ctx, cfg.relaySocket(), dir, log)
	if err != nil {
		return nil, fmt.Errorf("serve lazy files: %w", err)
	}
	p.fetcher.SetNeighbours(files.Neighbours)
	lazy := lazyfs.Serve(client, files, p.fetcher, lazyfs.Options{
		Logger: log,
		Observe: func(f ipfs.File, off, size int64) {
			files.Observe(f, off, size)
			p.fetcher.Opened(f.Cid)
		},
		Restart: func(state relay.State) (*relay.Client, error) {
			dev, err := relay.AskSpare(p.spare, state)
			if err != nil {
				return nil, err
			}
			defer dev.Close()
			return newRelay(ctx, cfg.relaySocket(), dir, dev, state)
		},
	})
	if err := relay.Ask(dir); err != nil {
		return nil, errors.Join(err, lazy.Close())
	}
	return lazy, nil
}

// snapshots is the configuration of the snapshotter on what is below it.
func (p *parts) snapshots(cfg config, content snapshotter.Content, log *slog.Logger) snapshotter.Config {
	c := snapshotter.Config{
		Root:         filepath.Join(cfg.Root, "snapshotter"),
		State:        filepath.Join(cfg.State, "mounts"),
		ObjectsDir:   p.store.ObjectsDir(),
		IndexTimeout: time.Duration(cfg.Node.Timeout),

		AllowUnverifiedDiffIDs: cfg.AllowUnverifiedDiffIDs,

		Mounts:        snapshotter.Mounts{Image: cfg.Mounts.Image, Data: cfg.Mounts.Data},
		Prefetch:      p.fetcher,
		Fill:          cfg.Fetch.Fill,
		ProfileWindow: time.Duration(cfg.Profile.Window),
		Content:       content,
		Hint:          p.node.Hint,
		Origins:       p.origin,
		Logger:        log,
	}
	limited, counted := cfg.Store.Limit > 0, cfg.Metrics.Address != ""
	c.Free = p.store.Free
	if limited { // or else nothing is evicted
		c.Used = p.store.Touch
	}
	if counted {
		c.Here = p.store.HasFile
		c.Used = func(object cid.Cid) {
			p.store.Touch(object)
			p.fetcher.Opened(object)
		}
	}
	return c
}

// serveHTTP adds what is served to others, if that is set, to what is served.
func (p *parts) serveHTTP(cfg config, socks sockets, seen http.Handler, https map[*http.Server]net.Listener, log *slog.Logger) error {
	if socks.metrics != nil {
		https[&http.Server{Handler: seen, ReadHeaderTimeout: 10 * time.Second}] = socks.metrics
		log.Info("metrics are served", "address", socks.metrics.Addr().String())
	}
	serveRegistry(cfg, p, socks.registry, https, log)
	if socks.routing != nil {
		https[routingServer(p, log)] = socks.routing
		log.Info("peers are told of each other", "address", socks.routing.Addr().String())
	}
	if socks.gateway != nil {
		server, err := gatewayServer(p.store, p.mirror.Withheld)
		if err != nil {
			return err
		}
		https[server] = socks.gateway
		warnOpen(log, socks.gateway.Addr())
	}
	return nil
}

// serve answers on all sockets until ctx is done or one of them fails.
func serve(ctx context.Context, cfg config, log *slog.Logger, p *parts, socks sockets) error {
	snaps, diffs, contents := grpc.NewServer(), diffServer(p.differ), contentServer(p.content)
	snapshotsapi.RegisterSnapshotsServer(snaps, snapshotservice.FromSnapshotter(p.snaps))
	mux := http.NewServeMux()
	mux.Handle("/api/v0/", kubo.NewHandler(p.repo(cfg), p.node, log))
	mux.Handle("GET "+statusPath, statusHandler(p, log))
	handleProfiles(mux, p.snaps, log)
	seen := seenHandler(cfg, p, log)
	for _, path := range seenPaths() {
		mux.Handle("GET "+path, seen)
	}
	api := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	https := map[*http.Server]net.Listener{api: socks.api}
	if err := p.serveHTTP(cfg, socks, seen, https, log); err != nil {
		return err
	}

	group, gctx := errgroup.WithContext(ctx)
	mux.Handle("POST "+checkPath, checkHandler(gctx, p.store, log))
	mux.Handle("POST "+fetchPath, fetchHandler(gctx, p.snaps, log))
	mux.Handle("POST "+recordPath, recordHandler(gctx, p.snaps, p.tasks, log))
	group.Go(func() error { return serveGRPC(snaps, socks.snaps) })
	group.Go(func() error { return serveGRPC(diffs, socks.diff) })
	group.Go(func() error { return serveGRPC(contents, socks.content) })
	group.Go(func() error { return serveGRPC(p.cri, socks.cri) })
	for server, listener := range https {
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		select {
		case <-p.lazy.Done():
			return errRelay
		case <-gctx.Done():
			return nil
		}
	})
	group.Go(func() error {
		watchSpare(gctx, p.spare, spareWatched, log)
		return nil
	})
	group.Go(func() error {
		<-gctx.Done()
		notify(log, daemon.SdNotifyStopping)
		return stopServers(context.WithoutCancel(gctx), slices.Collect(maps.Keys(https)), snaps, diffs, contents, p.cri)
	})
	notify(log, daemon.SdNotifyReady)
	log.Info("ready", "snapshotter", socks.snaps.Addr().String(), "diff", socks.diff.Addr().String(), "content", socks.content.Addr().String(), "api", socks.api.Addr().String(), "id", p.node.ID(), "addrs", p.node.Addrs())
	err := group.Wait()
	log.Info("stopping")
	return err
}

// serveGRPC answers until the server is stopped, which may have been before it began.
func serveGRPC(s *grpc.Server, l net.Listener) error {
	if err := s.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// stopServers lets requests that are under way end, for a while.
func stopServers(ctx context.Context, https []*http.Server, servers ...*grpc.Server) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	var graceful sync.WaitGroup
	for _, s := range servers {
		graceful.Go(s.GracefulStop)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		graceful.Wait()
	}()
	var errs []error
	for _, s := range https {
		if s.Shutdown(ctx) != nil {
			errs = append(errs, s.Close())
		}
	}
	select {
	case <-stopped:
	case <-ctx.Done():
		for _, s := range servers {
			s.Stop()
		}
		<-stopped
	}
	return errors.Join(errs...)
}

// notify tells systemd, where there is one, how the daemon stands.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd was not told", "state", state, "error", err)
	}
}

// ignoreClosed closes a listener that its server may have closed before.
func ignoreClosed(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}
