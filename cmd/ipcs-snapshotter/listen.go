package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A process that was killed may hold for a moment what it had: its socket is closed after the
// connections that tell of its end, and a child that it was about to start has copies.
const (
	lingers    = time.Second
	lingerTick = 10 * time.Millisecond
)

// outlast calls fn again and again while it fails for what a process holds that may be about to
// end.
func outlast(ctx context.Context, held error, fn func() error) error {
	deadline := time.Now().Add(lingers)
	for {
		err := fn()
		if !errors.Is(err, held) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-time.After(lingerTick):
		case <-ctx.Done():
			return err
		}
	}
}

// lockDir takes the folder for this process. The kernel gives it back when the process
// ends, however it ends.
func lockDir(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	lock := func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	if err := outlast(ctx, syscall.EWOULDBLOCK, lock); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w; another ipcs-snapshotter uses it: stop that, or choose another folder with --state", dir, err)
	}
	return f, nil
}

// errAnswers says that a socket is in use.
var errAnswers = errors.New("another process answers there")

// listenUnix listens on a unix socket that only its owner may use. A socket left over
// from a process that is gone is replaced; one that still answers is an error.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	return listenSocket(ctx, "unix", path)
}

// listenSocket is listenUnix for any kind of unix socket.
func listenSocket(ctx context.Context, network, path string) (l net.Listener, err error) {
	err = outlast(ctx, errAnswers, func() error {
		l, err = tryListen(ctx, network, path)
		return err
	})
	return l, err
}

func tryListen(ctx context.Context, network, path string) (net.Listener, error) {
	if conn, err := net.DialTimeout(network, path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: %w; stop it, or choose another folder with --state", path, errAnswers)
	} else if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w; remove what is there, or choose another folder with --state", path, err)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listen on %s: a file is in the way; remove it, or choose another folder with --state", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("replace socket: %w", err)
		}
	}
	// The socket is given the mode of its descriptor: so it is never open to others, and the
	// mask of the process, which others make files with, need not change for a moment.
	private := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	l, err := private.Listen(ctx, network, path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}
