package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/ipfs"
)

// statusPath is where the daemon answers with its status, beside Kubo's RPC.
const statusPath = "/ipcs/v1/status"

// status is what the daemon says of itself: a stable JSON document (fields are
// added, never changed). Sizes are in bytes.
type status struct {
	Version string        `json:"version"`
	PID     int           `json:"pid"`
	ID      string        `json:"id"`
	Addrs   []string      `json:"addrs"`
	Kubo    *kuboStatus   `json:"kubo,omitempty"` // with node.kubo: whose id and addrs those are
	Peers   []peerStatus  `json:"peers"`
	Store   storeStatus   `json:"store"`
	Fetch   fetchStatus   `json:"fetch"`
	Origin  originStatus  `json:"origin"`
	Lazy    lazyStatus    `json:"lazy"`
	Chains  []chainStatus `json:"chains"`
}

type peerStatus struct {
	ID        string `json:"id"`
	Addr      string `json:"addr"`
	Connected bool   `json:"connected"`
	Found     string `json:"found"` // configured, hint, router, dht or mdns; empty: it connected to us
	BytesIn   uint64 `json:"bytes_in"`
	Banned    bool   `json:"banned"`
}

// fetchStatus counts since the daemon's start.
type fetchStatus struct {
	Files    int64 `json:"files"`
	Bytes    int64 `json:"bytes"`
	InFlight int64 `json:"in_flight"`
}

// originStatus counts requests to registries and other places where images are kept since the daemon's start, and says what
// is known of these: images, and blocks that can be found now.
type originStatus struct {
	Requests int64 `json:"requests"`
	Failed   int64 `json:"failed"`
	Bytes    int64 `json:"bytes"`
	Images   int   `json:"images"`
	Blocks   int   `json:"blocks"`
}

// lazyStatus counts what the kernel asked the lazy file system for since the daemon's
// start: what is on disk it reads without.
type lazyStatus struct {
	Lookups int64 `json:"lookups"`
	Reads   int64 `json:"reads"`
	Errors  int64 `json:"errors"`

	Connected  bool  `json:"connected"`  // the process that holds the mount is there
	Unanswered int64 `json:"unanswered"` // requests that are being answered

	// The process that holds the mount: how many were started because one had died, and the
	// memory of this one, its own and that of files, which it shares with the daemon.
	RelayRestarts int64 `json:"relay_restarts"`
	RelayPID      int   `json:"relay_pid,omitempty"`
	RelaySpare    bool  `json:"relay_spare"` // without the process that keeps its device, its death loses the mount
	RelayOwn      int64 `json:"relay_own_bytes,omitempty"`
	RelayFiles    int64 `json:"relay_file_bytes,omitempty"`
	// BrokenContainers lie on a mount that has died: what they have not read is being fetched.
	BrokenContainers int64 `json:"broken_containers"`
}

// chainStatus is one merged run of ipcs layers: what an image ends in, or all of it.
type chainStatus struct {
	ID          string `json:"id"`
	Image       string `json:"image,omitempty"` // chainID of the image that containers use it for
	Fill        string `json:"fill"`            // how far getting its files ahead of need has come: a snapshotter.FillState
	Layers      int    `json:"layers"`
	Files       int    `json:"files"`
	Bytes       int64  `json:"bytes"`
	LocalFiles  int    `json:"local_files"`
	LocalBytes  int64  `json:"local_bytes"`
	Mounted     bool   `json:"mounted"`
	Mode        string `json:"mode"` // how its image is mounted
	Data        string `json:"data"` // how overlays on it get at the data of files
	Description string `json:"description,omitempty"`

	// Peers are who the local bytes came from since the daemon's start, as far as that is
	// remembered; the most first.
	Peers []chainPeer `json:"peers,omitempty"`
}

// chainPeer is what of a chain came from one peer.
type chainPeer struct {
	ID    string `json:"id"`
	Bytes int64  `json:"bytes"`
}

func statusCommand(flags *daemonFlags) *cobra.Command {
	var asJSON, watching bool
	var wait, interval time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "show what a running daemon is and has done",
		Example: `  ipcs-snapshotter status --wait 30s     # returns when the daemon is ready
  ipcs-snapshotter status --watch        # how images are coming, until it is interrupted
  ipcs-snapshotter status --json | jq -r '.addrs[]'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			if interval <= 0 {
				return fmt.Errorf("%w: --interval must be more than zero, not %s", errUsage, interval)
			}
			ask := func(ctx context.Context) ([]byte, error) { return fetchStatusJSON(ctx, cfg.apiSocket(), wait) }
			show := newView(cmd.OutOrStdout(), watching)
			if asJSON {
				show = showJSON(cmd.OutOrStdout())
			}
			if watching {
				return watch(cmd.Context(), interval, ask, show)
			}
			body, err := ask(cmd.Context())
			if err != nil {
				return err
			}
			return show(body)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole status as one JSON document a line")
	cmd.Flags().BoolVar(&watching, "watch", false, "show it again and again, with rates, until interrupted")
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "how often, with --watch")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait this long for the daemon to be ready")
	return cmd
}

// apiClient speaks to the daemon at a socket.
func apiClient(socket string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
}

// fetchStatusJSON asks the daemon at socket, again and again until wait has passed.
func fetchStatusJSON(ctx context.Context, socket string, wait time.Duration) ([]byte, error) {
	client := apiClient(socket)
	client.Timeout = 10 * time.Second
	deadline := time.Now().Add(wait)
	for {
		body, err := getStatus(ctx, client)
		if err == nil {
			return body, nil
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("no daemon answers at %s: %w; start ipcs-snapshotter, or name its folder with --state", socket, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func getStatus(ctx context.Context, client *http.Client) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://ipcs"+statusPath, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, 64<<20))
}

// humanBytes writes a size in decimal units, as registries and disks do.
func humanBytes(n int64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1000, 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.1f %cB", v, units[i])
}

// statusHandler answers with the status of p.
func statusHandler(p *parts, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(p.status(r.Context())); err != nil {
			log.Debug("status was not delivered", "error", err)
		}
	})
}

// here says whether all of a file is on this disk: as an object, or in leaves, as where it
// was converted.
func (p *parts) here(ctx context.Context, f ipfs.File) bool {
	if p.store.HasFile(f) {
		return true
	}
	for i := range f.NumLeaves() {
		if ok, err := p.store.Has(ctx, f.Leaf(i)); !ok || err != nil {
			return false
		}
	}
	return true
}

// cameFrom adds the bytes of a file to those of the peers that they came from.
func (p *parts) cameFrom(f ipfs.File, bytes map[string]int64) {
	for i := range f.NumLeaves() {
		if peer, ok := p.fetcher.Origin(f.Leaf(i)); ok {
			bytes[peer] += int64(f.LeafLen(i))
		}
	}
}

// sortedPeers lists the peers of a chain, those first that the most came from.
func sortedPeers(bytes map[string]int64) []chainPeer {
	var list []chainPeer
	for id, n := range bytes {
		list = append(list, chainPeer{id, n})
	}
	slices.SortFunc(list, func(a, b chainPeer) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), strings.Compare(a.ID, b.ID))
	})
	return list
}

func (p *parts) lazyStatus() lazyStatus {
	lazy := p.lazy.Stats()
	s := lazyStatus{
		Lookups: lazy.Lookups, Reads: lazy.Reads, Errors: lazy.Errors,
		Connected: p.relayed(), Unanswered: lazy.Unanswered, RelayRestarts: lazy.Restarts,
		RelaySpare: relay.FindSpare(p.spare) == nil, BrokenContainers: p.snaps.Broken(),
	}
	if pid, memory, err := p.lazy.Relay(); err == nil { // or it is just going
		s.RelayPID, s.RelayOwn, s.RelayFiles = pid, memory.Own, memory.Files
	}
	return s
}

func (p *parts) status(ctx context.Context) status {
	fetched := p.fetcher.Stats()
	s := status{
		Version: buildVersion(),
		PID:     os.Getpid(),
		ID:      p.node.ID(),
		Addrs:   append([]string{}, p.node.Addrs()...),
		Peers:   append([]peerStatus{}, p.node.peers()...),
		Chains:  []chainStatus{},
		Store:   newStoreStatus(p.store),
		Fetch:   fetchStatus{Files: fetched.Files, Bytes: fetched.Bytes, InFlight: fetched.InFlight},
	}
	s.Origin = originStatus(p.origin.Stats())
	s.Lazy = p.lazyStatus()
	if k, ok := p.node.(kuboNode); ok {
		s.Kubo = k.status()
	}
	for _, c := range p.snaps.Status() {
		chain := chainStatus{ID: c.ID, Image: c.Image.String(), Fill: string(c.Fill), Layers: c.Layers, Files: c.Files, Bytes: c.Bytes,
			Mounted: c.Mounted, Mode: string(c.Mode), Data: string(c.Data)}
		from := make(map[string]int64)
		for f := range p.snaps.ChainFiles(c.ID) {
			if p.here(ctx, f) {
				chain.LocalFiles++
				chain.LocalBytes += f.Size
				p.cameFrom(f, from)
			}
		}
		chain.Peers = sortedPeers(from)
		s.Chains = append(s.Chains, chain)
	}
	return s
}
