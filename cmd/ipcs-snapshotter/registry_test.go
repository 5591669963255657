package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/hosttest"
)

// TestRegistry starts a daemon that answers as a registry, and one that finds the address taken.
func TestRegistry(t *testing.T) {
	hosttest.Root(t)
	dir := t.TempDir()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := defaultConfig()
	cfg.Root, cfg.State = filepath.Join(dir, "root"), filepath.Join(dir, "state")
	cfg.Registry.Address, cfg.Node.Timeout = taken.Addr().String(), duration(time.Second)
	if err := run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--registry-address") {
		t.Errorf("an address that is taken: %v", err)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	notified := listenNotify(t, filepath.Join(dir, "notify"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg) }()
	if got := <-notified; got != "READY=1" {
		t.Fatalf("systemd was told %q, %v", got, <-done)
	}
	const nothing = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354" // an empty directory
	for path, want := range map[string]int{
		"/v2/": http.StatusOK, "/v2/ipfs/" + nothing + "/tags/list": http.StatusNotFound, "/metrics": http.StatusNotFound, "/api/v0/version": http.StatusNotFound,
	} {
		if status, body := get(t, "http://"+cfg.Registry.Address+path); status != want {
			t.Errorf("%s: %d, %q; want %d", path, status, body, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	if conn, err := net.Dial("tcp", cfg.Registry.Address); err == nil {
		conn.Close()
		t.Error("it answers still")
	}
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}
