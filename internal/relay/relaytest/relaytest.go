//go:build linux

// Package relaytest runs relays for tests.
package relaytest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/relay"
)

// Options say what relay is wanted.
type Options struct {
	Patience time.Duration // default relay.DefaultPatience
	Logger   *slog.Logger
}

// Start mounts a FUSE file system at dir and returns the socket for daemons. The relay
// runs until the file system is unmounted, which Start sees to when the test ends.
func Start(t testing.TB, dir string, opts Options) (socket string) {
	t.Helper()
	dev, err := relay.Mount(dir)
	if err != nil {
		t.Fatalf("%v (this test needs root and /dev/fuse)", err)
	}
	run, err := os.MkdirTemp("", "relay") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(run, "sock")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	r := relay.New(dir, dev, ln, relay.Options{Patience: opts.Patience, Logger: opts.Logger})
	served := make(chan error, 1)
	go func() { served <- r.Serve(context.WithoutCancel(t.Context())) }()
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			t.Error(err)
		}
		if err := errors.Join(<-served, os.RemoveAll(run)); err != nil {
			t.Error(err)
		}
	})
	return socket
}

// NoPoll is relay.Ask, which must be called when a file system is served by the process that
// reads it.
func NoPoll(t testing.TB, dir string) {
	t.Helper()
	if err := relay.Ask(dir); err != nil {
		t.Fatal(err)
	}
}
