//go:build linux

package relay

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrNoFuse says that this host does not let us mount a FUSE file system.
var ErrNoFuse = errors.New("FUSE is not available")

// maxStale bounds how many dead mounts are taken off one mount point.
const maxStale = 64

// Mount mounts a read-only FUSE file system for all users at dir, which is made if it is
// not there, and returns its device. What a relay that died has left mounted there goes
// first. The error is ErrNoFuse, wrapped, when this host does not let us.
func Mount(dir string) (*os.File, error) {
	dev, err := mount(dir)
	if err != nil {
		return nil, fmt.Errorf("mount a FUSE file system at %s: %w", dir, explain(err))
	}
	return dev, nil
}

func mount(dir string) (*os.File, error) {
	// The device blocks: the runtime's poller would cost a system call a message.
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	dev := os.NewFile(uintptr(fd), "/dev/fuse")
	err = clearMountPoint(dir)
	if err == nil {
		options := fmt.Sprintf("fd=%d,rootmode=40555,user_id=0,group_id=0,default_permissions,allow_other", fd)
		err = unix.Mount("ipcs", dir, "fuse.ipcs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_RDONLY, options)
	}
	if err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// clearMountPoint makes dir a directory that can be mounted on.
func clearMountPoint(dir string) error {
	for range maxStale {
		// The kernel may answer other calls from memory for a server that is dead.
		err := unix.Statfs(dir, &unix.Statfs_t{})
		if errors.Is(err, unix.ENOENT) {
			return os.MkdirAll(dir, 0o700)
		}
		if errors.Is(err, unix.ECONNABORTED) {
			continue // its server has just died: the kernel ends what it was asked, and then the mount
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

// explain turns what the kernel says when FUSE is not to be had into ErrNoFuse.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%w: %w: load the kernel module (modprobe fuse), and in a container pass the device in (--device /dev/fuse)", ErrNoFuse, err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w: run as root, and in a container with CAP_SYS_ADMIN and the device /dev/fuse; without root rights, whoever mounts must be allowed to open /dev/fuse", ErrNoFuse, err)
	}
	return err
}

// hackName is of a file that go-fuse shows in every file system, to be asked for what Ask asks.
const hackName = ".go-fuse-epoll-hack"

// Ask has the kernel ask once what it asks once in the life of a file system: whether files can be
// polled and flushed, which they cannot. Who serves or restarts the file system, and has files
// of it open, must not be the first to ask. Go polls what it opens, with its epoll locked, which serving needs, too;
// and a process that it starts closes copies of all files that this one has open, which flushes them, before
// its program is run: to start a relay would wait for the relay. The file system at dir must be served.
func Ask(dir string) error {
	fd, err := unix.Open(filepath.Join(dir, hackName), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ask the file system at %s whether it polls and flushes: %w", dir, err)
	}
	_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return errors.Join(err, unix.Close(fd))
}
