package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/metrics"
)

// ask gets a page; the socket is that of the API, or empty for TCP.
func ask(t *testing.T, socket, url string) (int, string) {
	t.Helper()
	client := http.DefaultClient
	if socket != "" {
		client = apiClient(socket)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// freeAddress is one that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestSeen looks at a daemon as Prometheus and probes do: all that is documented is there, all
// that the dashboard shows, and a daemon that cannot serve says so.
func TestSeen(t *testing.T) {
	hosttest.Root(t)
	dir := t.TempDir()
	cfg := defaultConfig()
	cfg.Root, cfg.State, cfg.Metrics.Address = filepath.Join(dir, "root"), filepath.Join(dir, "state"), freeAddress(t)
	cfg.Metrics.Pprof = true
	notified := listenNotify(t, filepath.Join(dir, "notify"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg) }()
	if got := <-notified; got != "READY=1" {
		t.Fatalf("systemd was told %q, %v", got, <-done)
	}

	names := make(map[string]bool)
	for socket, base := range map[string]string{"": "http://" + cfg.Metrics.Address, cfg.apiSocket(): "http://ipcs"} {
		for _, path := range []string{"/healthz", "/readyz"} {
			if code, body := ask(t, socket, base+path); code != http.StatusOK {
				t.Errorf("%s%s: %d %s", base, path, code, body)
			}
		}
		if code, body := ask(t, socket, base+pprofPath+"heap"); code != http.StatusOK || !strings.HasPrefix(body, "\x1f\x8b") {
			t.Errorf("%s: a profile: %d, %d bytes", base, code, len(body))
		}
		_, scrape := ask(t, socket, base+"/metrics")
		for line := range strings.Lines(scrape) {
			name, _, _ := strings.Cut(line, " ")
			name, _, _ = strings.Cut(name, "{")
			names[name] = name != "#"
		}
	}
	for _, f := range metrics.Families() {
		name := f.Name
		if f.Type == metrics.Histogram {
			name += "_bucket"
		}
		if !names[name] && name != "ipcs_store_held_bytes" { // file systems may not tell
			t.Errorf("a scrape has no %s", name)
		}
	}
	for _, name := range dashboardMetrics(t) {
		if !names[name] {
			t.Errorf("the dashboard shows %s, which a scrape does not have", name)
		}
	}

	if err := os.Remove(cfg.snapshotterSocket()); err != nil {
		t.Fatal(err)
	}
	if code, body := ask(t, "", "http://"+cfg.Metrics.Address+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "snapshotter.sock") {
		t.Errorf("without a socket: %d %s", code, body)
	}
	if code, _ := ask(t, "", "http://"+cfg.Metrics.Address+"/healthz"); code != http.StatusOK {
		t.Errorf("without a socket it is no longer healthy: %d", code)
	}
	if code, _ := ask(t, "", "http://"+cfg.Metrics.Address+statusPath); code != http.StatusNotFound {
		t.Errorf("the API is there for everybody: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestPprofIsBehindAFlag finds that nobody gets a profile unless the configuration says so.
func TestPprofIsBehindAFlag(t *testing.T) {
	h := seenHandler(defaultConfig(), &parts{}, slog.New(slog.DiscardHandler))
	for _, path := range []string{"", "heap", "profile", "cmdline"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, pprofPath+path, nil))
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "--metrics-pprof") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestNotWritable(t *testing.T) {
	if err := writable(t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := writable(filepath.Join(t.TempDir(), "gone")); err == nil {
		t.Error("a folder that is not there is writable")
	}
}

// dashboardMetrics are the metrics that docs/grafana.json asks for.
func dashboardMetrics(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "grafana.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	name := regexp.MustCompile(`\b(?:ipcs|go|process)_[a-z0-9_]+`)
	var names []string
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			found := name.FindAllString(target.Expr, -1)
			if len(found) == 0 {
				t.Errorf("panel %q asks for nothing of ours: %q", p.Title, target.Expr)
			}
			names = append(names, found...)
		}
	}
	if len(names) < 20 {
		t.Fatalf("the dashboard has only %d metrics", len(names))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestMetricsAreDocumented holds docs/metrics.md to the metrics.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, f := range metrics.Families() {
		labels := ""
		if len(f.Labels) > 0 {
			labels = "`" + strings.Join(f.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, labels, f.Help)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/metrics.md should have this table:\n%s", want.String())
	}
}
