package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"google.golang.org/grpc"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/profile/profiletest"
)

// TestRun starts the daemon, waits for it as systemd and as a script would, and stops it:
// it must say that it is ready only when it answers, and leave nothing mounted.
func TestRun(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the daemon mounts: run this test as root")
	}
	dir := t.TempDir()
	cfg := defaultConfig()
	cfg.Root, cfg.State = filepath.Join(dir, "root"), filepath.Join(dir, "state")
	notified := listenNotify(t, filepath.Join(dir, "notify"))

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg) }()
	if got := <-notified; got != "READY=1" {
		t.Fatalf("systemd was told %q first", got)
	}
	// Ready means ready: no waiting here.
	body, err := fetchStatusJSON(t.Context(), cfg.apiSocket(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var s status
	if err := json.Unmarshal(body, &s); err != nil || s.PID != os.Getpid() || s.ID == "" {
		t.Fatalf("status %s, %v", body, err)
	}
	if err := run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another ipcs-snapshotter") {
		t.Errorf("a second daemon: %v", err)
	}

	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	if got := <-notified; got != "STOPPING=1" {
		t.Errorf("systemd was told %q last", got)
	}
	left, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil || len(left) != 0 {
		t.Errorf("left mounted: %v, %v", left, err)
	}
	if _, err := fetchStatusJSON(t.Context(), cfg.apiSocket(), 0); err == nil || !strings.Contains(err.Error(), "start ipcs-snapshotter") {
		t.Errorf("status of no daemon: %v", err)
	}
}

// TestProfiles ends a daemon as systemd does.
func TestProfiles(t *testing.T) {
	hosttest.Root(t)
	dir := t.TempDir()
	cfg := defaultConfig()
	cfg.Root, cfg.State, cfg.pprof = filepath.Join(dir, "root"), filepath.Join(dir, "state"), filepath.Join(dir, "pprof")
	notified := listenNotify(t, filepath.Join(dir, "notify"))

	ctx, cancel := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg) }()
	if got := <-notified; got != "READY=1" {
		t.Fatalf("systemd was told %q, %v", got, <-done)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
	profiletest.Check(t, cfg.pprof)
}

// listenNotify is systemd's side of sd_notify.
func listenNotify(t *testing.T, path string) <-chan string {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", path)
	notified := make(chan string, 4)
	go func() {
		defer close(notified)
		buf := make([]byte, 256)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			notified <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		for range notified { // until the reader has ended
		}
	})
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return notified
}

// TestStoppedBeforeServing ends a server before it has begun, as a daemon that is stopped at
// once does: that is no failure.
func TestStoppedBeforeServing(t *testing.T) {
	l, err := listenUnix(t.Context(), filepath.Join(t.TempDir(), "sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	s.Stop()
	if err := serveGRPC(s, l); err != nil {
		t.Error(err)
	}
}
