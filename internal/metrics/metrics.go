// Package metrics shows what the daemon counts to Prometheus.
//
// Other packages count for themselves, and know nothing of this one. For each scrape the
// daemon puts what they have counted into a Snapshot of plain values; the table of families
// (table.go) says what becomes of each. So counting costs readers nothing more than it did,
// nothing is registered anywhere, and a scrape is all there is to pay for.
//
// Labels are bounded: each peer that has sent something has its own label, but no more than
// maxPeers of them; what the others sent is counted together.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	// maxPeers bounds the peers with labels of their own.
	maxPeers = 32
	// otherPeers is the label of all others.
	otherPeers = "other"
)

// A Snapshot is what was counted until now. Counts are since the daemon's start.
type Snapshot struct {
	Version string

	DiskReads, PeerReads, ReadErrors int64
	Waits                            Latency // of PeerReads

	FetchedFiles, FetchedBytes, LeavesInFlight int64
	Peers                                      []Peer
	Transfer                                   Transfer
	Origin                                     Origin

	// What was not fetched because it was here: whole files, and leaves of files that were not.
	SavedFiles, SavedFileBytes, SavedLeafBytes int64

	Prefetched map[string]Prefetched // by why: "profile", "fill"

	StoreObjects, StoreUsed, StoreLimit int64
	StoreCompressed                     int64 // of StoreUsed
	StoreHeld                           int64 // -1 if it is not known
	EvictedObjects, EvictedBytes        int64

	Images         map[string]int // in use, by how far fetching them has come
	Mounted        int
	Layers         int
	RelayConnected bool
	RelayRestarts  int64
	Unanswered     int64
}

// Latency counts waits by how long they were.
type Latency struct {
	Bounds []time.Duration // upper bounds of Counts, which has one element more
	Counts []int64
	Sum    time.Duration
}

// Transfer counts bytes of blocks, and of the frames that they travelled in.
type Transfer struct{ ReceivedBlocks, ReceivedWire, SentBlocks, SentWire uint64 }

// Origin counts requests to registries and other places where images are kept, those that failed, and bytes that came, compressed.
type Origin struct{ Requests, Failed, Bytes int64 }

// Peer is another node.
type Peer struct {
	ID                 string
	Received           uint64 // bytes of blocks
	Connected, Refused bool
}

// Prefetched counts files that were fetched before anybody waited for them, and those of
// them that were opened since.
type Prefetched struct{ Files, Bytes, OpenedFiles, OpenedBytes int64 }

// Handler answers scrapes with what snapshot returns, and what is known of the Go runtime
// and of the process.
func Handler(snapshot func(context.Context) Snapshot, log *slog.Logger) http.Handler {
	h := &handler{snapshot: snapshot, log: log, labels: make(map[string]bool)}
	h.runtime = []prometheus.Collector{
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	return h
}

type handler struct {
	snapshot func(context.Context) Snapshot
	log      *slog.Logger
	runtime  []prometheus.Collector

	mu     sync.Mutex
	labels map[string]bool // peers with a label of their own
}

// ServeHTTP implements http.Handler. A registry is made for each scrape, so that what is
// shown is of one moment and of this request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := h.snapshot(r.Context())
	s.Peers = h.label(s.Peers)
	registry := prometheus.NewPedanticRegistry()
	for _, c := range append(h.runtime[:len(h.runtime):len(h.runtime)], collector{&s}) {
		if err := registry.Register(c); err != nil {
			h.log.Error("metrics cannot be shown", "err", err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn),
	}).ServeHTTP(w, r)
}

// label puts peers without a label of their own together. A peer that has one keeps it.
func (h *handler) label(peers []Peer) []Peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]Peer, 0, len(peers)+1)
	var others []Peer
	for _, p := range peers {
		if p.Received > 0 && len(h.labels) < maxPeers {
			h.labels[p.ID] = true
		}
		if h.labels[p.ID] {
			out = append(out, p)
		} else {
			p.ID = ""
			others = append(others, p)
		}
	}
	return append(out, others...)
}

// collector shows one Snapshot.
type collector struct{ *Snapshot }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range families() {
		ch <- f.desc()
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, f := range families() {
		desc := f.desc()
		if f.Type == Histogram {
			ch <- c.Waits.metric(desc)
			continue
		}
		f.values(c.Snapshot, func(v float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, f.Type.value(), v, labels...)
		})
	}
}

func (l *Latency) metric(desc *prometheus.Desc) prometheus.Metric {
	buckets := make(map[float64]uint64, len(l.Bounds))
	var n uint64
	for i, count := range l.Counts {
		n += uint64(count)
		if i < len(l.Bounds) {
			buckets[l.Bounds[i].Seconds()] = n
		}
	}
	return prometheus.MustNewConstHistogram(desc, n, l.Sum.Seconds(), buckets)
}
