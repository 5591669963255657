package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"time"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/metrics"
	"github.com/hinshun/ipcs/snapshotter"
)

// readyTimeout is how long one look at what must be ready may take.
const readyTimeout = 5 * time.Second

// seenPaths are where Prometheus, probes of Kubernetes and others, and go tool pprof look.
func seenPaths() []string { return []string{"/metrics", "/healthz", "/readyz", pprofPath} }

const pprofPath = "/debug/pprof/"

// seenHandler answers on them.
func seenHandler(cfg config, p *parts, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics.Handler(p.counted, log))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := p.ready(r.Context(), cfg); err != nil {
			log.Warn("not ready", "err", err)
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	if cfg.Metrics.Pprof {
		mux.HandleFunc("GET "+pprofPath, pprof.Index)
		mux.HandleFunc("GET "+pprofPath+"cmdline", pprof.Cmdline)
		mux.HandleFunc("GET "+pprofPath+"profile", pprof.Profile)
		mux.HandleFunc("GET "+pprofPath+"symbol", pprof.Symbol)
		mux.HandleFunc("GET "+pprofPath+"trace", pprof.Trace)
	} else {
		mux.HandleFunc("GET "+pprofPath, func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "profiles are not served; set metrics.pprof, or --metrics-pprof", http.StatusForbidden)
		})
	}
	return mux
}

// ready says what keeps the daemon from serving, if anything does.
func (p *parts) ready(ctx context.Context, cfg config) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	var errs []error
	if !p.relayed() {
		errs = append(errs, errRelay)
	}
	if err := p.node.away(); err != nil {
		errs = append(errs, err)
	}
	// What is there may be removed or moved away from a daemon that goes on.
	for _, socket := range []string{cfg.snapshotterSocket(), cfg.diffSocket(), cfg.contentSocket(), cfg.apiSocket()} {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			err = conn.Close()
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%w: start the daemon again", err))
		}
	}
	if err := writable(filepath.Dir(p.store.ObjectsDir())); err != nil {
		errs = append(errs, fmt.Errorf("the store cannot be written: %w", err))
	}
	return errors.Join(errs...)
}

// writable writes a file of a byte, which a full or a read-only file system refuses.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, "ready-*")
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

// relayed says whether the process that holds the FUSE mount is there.
func (p *parts) relayed() bool {
	select {
	case <-p.lazy.Done():
		return false
	default:
		return true
	}
}

// counted collects what the parts have counted.
func (p *parts) counted(context.Context) metrics.Snapshot {
	lazy, fetched, stored, space, snaps := p.lazy.Stats(), p.fetcher.Stats(), p.store.Stats(), p.store.Space(), p.snaps.Counts()
	s := metrics.Snapshot{
		Version:   buildVersion(),
		DiskReads: lazy.Local + fetched.Hits, PeerReads: fetched.Misses, ReadErrors: lazy.Errors,
		Waits:        metrics.Latency{Bounds: fetched.Waits.Bounds(), Counts: fetched.Waits.Counts[:], Sum: fetched.Waits.Sum},
		FetchedFiles: fetched.Files, FetchedBytes: fetched.Bytes, LeavesInFlight: fetched.InFlight,
		SavedFiles: snaps.SharedFiles, SavedFileBytes: snaps.SharedBytes, SavedLeafBytes: fetched.LocalBytes,
		Prefetched:   map[string]metrics.Prefetched{"profile": prefetched(fetched.Profile), "fill": prefetched(fetched.Fill)},
		Transfer:     p.node.traffic(),
		StoreObjects: stored.Objects, StoreUsed: space.Used, StoreCompressed: space.Spare, StoreLimit: space.Limit, StoreHeld: space.Held,
		EvictedObjects: space.EvictedObjects, EvictedBytes: space.EvictedBytes,
		Images: make(map[string]int), Mounted: snaps.Mounted, Layers: snaps.Layers,
		RelayConnected: p.relayed(), RelayRestarts: lazy.Restarts, Unanswered: lazy.Unanswered,
	}
	at := p.origin.Stats()
	s.Origin = metrics.Origin{Requests: at.Requests, Failed: at.Failed, Bytes: at.Bytes}
	for _, peer := range p.node.peers() {
		s.Peers = append(s.Peers, metrics.Peer{ID: peer.ID, Received: peer.BytesIn, Connected: peer.Connected, Refused: peer.Banned})
	}
	for _, state := range snapshotter.FillStates() {
		if state != snapshotter.FillUnused {
			s.Images[string(state)] = snaps.Images[state]
		}
	}
	return s
}

func prefetched(p fetch.Prefetched) metrics.Prefetched {
	return metrics.Prefetched{Files: p.Files, Bytes: p.Bytes, OpenedFiles: p.OpenedFiles, OpenedBytes: p.OpenedBytes}
}
