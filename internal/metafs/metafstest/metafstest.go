//go:build linux

// Package metafstest serves images for tests.
package metafstest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hinshun/ipcs/internal/metafs"
)

// Start runs a server, and returns a client of it and the server's socket. Both end with the
// test, which has to unmount everything before.
func Start(t testing.TB) (client *metafs.Client, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "metafs") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "sock")
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	server := metafs.NewServer(ln, slog.New(slog.NewTextHandler(t.Output(), nil)))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.WithoutCancel(t.Context())) }()
	if client, err = metafs.Dial(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The client may be closed: that is how the server is let go.
		if err := client.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := errors.Join(<-served, os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	return client, socket
}
