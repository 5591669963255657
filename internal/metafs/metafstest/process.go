//go:build linux

package metafstest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/metafs"
)

// Program is the name that TestMain has to know Serve by, for Lazy.
const Program = "images"

// Serve is a server as a program of a test's binary: it listens at socket.
func Serve(socket string) error {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: socket})
	if err != nil {
		return err
	}
	return metafs.NewServer(ln, slog.New(slog.NewTextHandler(os.Stderr, nil))).Serve(context.Background())
}

// endTime is how long a server has to end when all is unmounted.
const endTime = 30 * time.Second

// Lazy returns a function that mounts images, served by another process, which is started by
// the first call. When the test ends, it must have unmounted them all: then the process ends.
func Lazy(t testing.TB) func(path, dir string, data ...string) error {
	t.Helper()
	end := func() error { return nil }
	start := sync.OnceValues(func() (client *metafs.Client, err error) {
		client, end, err = startProcess(t)
		return client, err
	})
	t.Cleanup(func() { // before those of what comes to be mounted, so that it runs after them
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return func(path, dir string, data ...string) error {
		client, err := start()
		if err != nil {
			return err
		}
		return client.Mount(path, dir, data...)
	}
}

// startProcess also returns what waits for the process to end.
func startProcess(t testing.TB) (client *metafs.Client, end func() error, err error) {
	end = func() error { return nil }
	dir, err := os.MkdirTemp("", "metafs")
	if err != nil {
		return nil, end, err
	}
	socket := filepath.Join(dir, "sock")
	cmd := hosttest.Program(Program, socket)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, end, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	client, err = dial(socket)
	end = func() error {
		timer := time.AfterFunc(endTime, func() {
			t.Error("the server of images does not end: something is mounted")
			_ = cmd.Process.Kill() // it may have ended by now
		})
		defer timer.Stop()
		var cerr error
		if client != nil {
			cerr = client.Close()
		}
		return errors.Join(cerr, <-ended, os.RemoveAll(dir))
	}
	return client, end, err
}

// dial waits for a server that was just started.
func dial(socket string) (client *metafs.Client, err error) {
	for range 1000 {
		if client, err = metafs.Dial(socket); err == nil {
			return client, nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, err
}
