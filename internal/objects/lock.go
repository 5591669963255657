package objects

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// formatVersion is the version of the directory's layout, in DIR/version. What was written before is read: version 3 has blobs, whose
// references say so.
const formatVersion, oldestVersion = 3, 2

var (
	// ErrLocked says that another process has the store open.
	ErrLocked = errors.New("store is in use")
	// ErrVersion says that the store was written by a newer ipcs.
	ErrVersion = errors.New("store has an unknown format")
)

// lockDir takes the lock of the store, which the kernel gives back when this process
// ends, however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("%w by %s: stop it, or let it do the work (convert: give its API socket with --ipfs-api instead of this directory)",
				ErrLocked, holder(f))
		}
		return nil, errors.Join(err, f.Close())
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holder names the process that wrote the lock file.
func holder(f *os.File) string {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0) // what is not there is not shown
	if pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n]))); err == nil {
		return fmt.Sprintf("process %d", pid)
	}
	return "another process"
}

// checkVersion refuses a store of a version this code does not know, and marks a new one.
func checkVersion(dir string) error {
	path := filepath.Join(dir, "version")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return writeVersion(path)
	}
	if err != nil {
		return err
	}
	v, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || v < 1 {
		return fmt.Errorf("%w: %s says %q: restore that file, or use another directory", ErrVersion, path, b)
	}
	if v == oldestVersion {
		return writeVersion(path)
	}
	if v < formatVersion {
		return fmt.Errorf("%w: it has version %d, this program writes %d: use another directory", ErrVersion, v, formatVersion)
	}
	if v > formatVersion {
		return fmt.Errorf("%w: it has version %d, this program knows up to %d: use a newer ipcs, or another directory", ErrVersion, v, formatVersion)
	}
	return nil
}

func writeVersion(path string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, formatVersion)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// noSpace adds to a full disk's error which disk it is and what to do.
func noSpace(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the file system of %s is full, free some space: %w", dir, err)
	}
	return err
}
