package metrics_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/metrics"
)

func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("scrape: %d %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func handler(s *metrics.Snapshot) http.Handler {
	return metrics.Handler(func(context.Context) metrics.Snapshot { return *s }, slog.New(slog.DiscardHandler))
}

func TestScrape(t *testing.T) {
	s := metrics.Snapshot{
		Version: "v1", DiskReads: 7, PeerReads: 3,
		Waits: metrics.Latency{
			Bounds: []time.Duration{time.Millisecond, time.Second},
			Counts: []int64{1, 1, 1}, Sum: 3 * time.Second,
		},
		Peers:      []metrics.Peer{{ID: "a", Received: 5, Connected: true}, {ID: "b"}},
		Prefetched: map[string]metrics.Prefetched{"fill": {Files: 5, OpenedFiles: 2}},
		Transfer:   metrics.Transfer{ReceivedBlocks: 30, ReceivedWire: 10, SentBlocks: 3, SentWire: 1},
		StoreHeld:  -1, RelayConnected: true,
	}
	got := scrape(t, handler(&s))
	for _, want := range []string{
		`ipcs_reads_total{source="disk"} 7`,
		`ipcs_reads_total{source="peer"} 3`,
		`ipcs_read_wait_seconds_bucket{le="0.001"} 1`,
		`ipcs_read_wait_seconds_bucket{le="1"} 2`,
		`ipcs_read_wait_seconds_bucket{le="+Inf"} 3`,
		`ipcs_read_wait_seconds_sum 3`,
		`ipcs_peer_received_bytes_total{peer="a"} 5`,
		`ipcs_peer_received_bytes_total{peer="other"} 0`,
		`ipcs_transfer_bytes_total{direction="received",of="blocks"} 30`,
		`ipcs_transfer_bytes_total{direction="received",of="wire"} 10`,
		`ipcs_transfer_bytes_total{direction="sent",of="wire"} 1`,
		`ipcs_peers{state="connected"} 1`,
		`ipcs_peers{state="disconnected"} 1`,
		`ipcs_prefetch_unopened_files{by="fill"} 3`,
		`ipcs_build_info{version="v1"} 1`,
		`ipcs_relay_connected 1`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if !strings.Contains(got, "\n"+name+" ") {
			t.Errorf("no %s", name)
		}
	}
	if strings.Contains(got, "\nipcs_store_held_bytes ") {
		t.Error("what is not known is shown")
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestPeersAreBounded shows more peers than have labels: the first ones keep theirs, and
// no byte is lost.
func TestPeersAreBounded(t *testing.T) {
	var s metrics.Snapshot
	h := handler(&s)
	s.Peers = []metrics.Peer{{ID: "first", Received: 1}, {ID: "silent"}}
	scrape(t, h)
	s.Peers = nil
	for i := range 100 {
		s.Peers = append(s.Peers, metrics.Peer{ID: fmt.Sprint("peer", i), Received: 2})
	}
	s.Peers = append(s.Peers, metrics.Peer{ID: "first", Received: 1})
	got := scrape(t, h)
	if n := strings.Count(got, "ipcs_peer_received_bytes_total{"); n != 33 {
		t.Errorf("%d peers are shown", n)
	}
	for _, want := range []string{`{peer="first"} 1`, `{peer="other"} 138`} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

// TestNames holds names to what Prometheus expects of them.
func TestNames(t *testing.T) {
	for _, f := range metrics.Families() {
		if !strings.HasPrefix(f.Name, "ipcs_") || strings.HasSuffix(f.Name, "_total") != (f.Type == metrics.Counter) || f.Help == "" {
			t.Errorf("%s, a %s: %q", f.Name, f.Type, f.Help)
		}
	}
}

// BenchmarkScrape is what a scrape costs, with as many peers as have labels.
func BenchmarkScrape(b *testing.B) {
	var s metrics.Snapshot
	for i := range 32 {
		s.Peers = append(s.Peers, metrics.Peer{ID: fmt.Sprint("peer", i), Received: 2})
	}
	h := handler(&s)
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil))
	}
}
