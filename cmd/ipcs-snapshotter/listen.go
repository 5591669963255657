package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockDir takes the folder for this process. The kernel gives it back when the process
// ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w; another ipcs-snapshotter uses it: stop that, or choose another folder with --state", dir, err)
	}
	return f, nil
}

// listenUnix listens on a unix socket that only its owner may use. A socket left over
// from a process that is gone is replaced; one that still answers is an error.
func listenUnix(path string) (net.Listener, error) { return listenSocket("unix", path) }

// listenSocket is listenUnix for any kind of unix socket.
func listenSocket(network, path string) (net.Listener, error) {
	if conn, err := net.DialTimeout(network, path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("listen on %s: another process answers there; stop it, or choose another folder with --state", path)
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
	// The mask is the process's, but nothing else runs yet; without it the socket would
	// be open to others for a moment.
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	l, err := net.Listen(network, path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}
