//go:build linux

package opens

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// marked knows which mounts were marked and are still there. To mark a mount is to hold it
// for a moment, and whoever unmounts it just then finds it busy: so it is done once. Numbers
// of mounts are used again, so marks are the memory, in a group without marks of files, which
// may be many: the kernel drops them with their mounts, and lists those that are left. One goroutine uses it.
type marked struct {
	fd   int
	live map[int]struct{} // numbers of mounts, at look
}

func newMarked() (*marked, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	return &marked{fd: fd}, nil
}

func (m *marked) close() { _ = unix.Close(m.fd) } // nothing was written

// add marks the mount of a directory.
func (m *marked) add(dir int) error { return ignoreMount(m.fd, dir) }

// ignoreMount makes a group tell nothing of what is opened through the mount of a directory.
func ignoreMount(group, dir int) error {
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_MOUNT | unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_IGNORED_SURV_MODIFY
	return unix.FanotifyMark(group, flags, unix.FAN_OPEN, dir, "")
}

func (m *marked) has(mount int) bool {
	_, ok := m.live[mount]
	return ok
}

// look looks which mounts are left.
func (m *marked) look() error {
	f, err := os.Open("/proc/self/fdinfo/" + strconv.Itoa(m.fd))
	if err != nil {
		return err
	}
	defer f.Close()
	m.live = make(map[int]struct{})
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "fanotify mnt_id:")
		if !ok {
			continue
		}
		digits, _, _ := strings.Cut(rest, " ")
		id, err := strconv.ParseInt(digits, 16, 0)
		if err != nil {
			return fmt.Errorf("list marks: %w", err)
		}
		m.live[int(id)] = struct{}{}
	}
	return lines.Err()
}
