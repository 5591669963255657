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

// NoPoll makes the kernel ask once whether files can be polled, which they cannot. It must
// be called when a file system is served by the process that reads it: the runtime would
// have it asked while it holds the lock of its own epoll, which serving needs too. The
// name is the one that go-fuse answers itself.
func NoPoll(t testing.TB, dir string) {
	t.Helper()
	fd, err := unix.Open(filepath.Join(dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	if err := errors.Join(err, unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
}
