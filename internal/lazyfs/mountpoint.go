package lazyfs

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrNoFuse says that this host does not let us mount a FUSE file system.
var ErrNoFuse = errors.New("FUSE is not available")

// maxStale bounds how many dead mounts are taken off one mount point.
const maxStale = 64

// clearMountPoint makes dir a directory that can be mounted on.
func clearMountPoint(dir string) error {
	if err := checkFuse(); err != nil {
		return err
	}
	for range maxStale {
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			// The kernel may answer from memory for a server that is dead, but not this.
			err = unix.Statfs(dir, &unix.Statfs_t{})
		}
		if !errors.Is(err, unix.ENOTCONN) {
			return err
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("take away the mount that an earlier process has left: %w", err)
		}
	}
	return fmt.Errorf("more than %d dead mounts lie on one another: unmount them", maxStale)
}

func checkFuse() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return explain(err)
	}
	return f.Close()
}

// explain turns what the kernel says when FUSE is not to be had into ErrNoFuse.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w: load the kernel module (modprobe fuse), and in a container pass the device in (--device /dev/fuse)", ErrNoFuse, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w: run as root, and in a container with CAP_SYS_ADMIN and the device /dev/fuse", ErrNoFuse, err)
	}
	return err
}
