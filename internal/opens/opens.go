//go:build linux

// Package opens tells which files are opened on an overlay that somebody else mounts: also
// those that are on disk, whose reads no file system of ours sees.
//
// The kernel tells when the mounts of this namespace change (poll of /proc/self/mountinfo).
// Each overlay with the upper directory that is watched is marked with fanotify as it
// appears: containerd mounts a container's overlay for a moment when it makes the container,
// and again when it starts it. A mark is of the file system, and so it tells of containers
// too, which see the overlay in namespaces of their own. The kernel drops it with the
// overlay.
//
// An event comes with a descriptor, whose link in /proc is a path: from the root of the
// container, which is that of the overlay, or from ours.
//
// Concurrency: Watch has two goroutines and returns when both have ended.
package opens

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

const (
	// eventSize is the length of an event, and eventsRead how many are read at a time.
	eventSize  = unix.FAN_EVENT_METADATA_LEN
	eventsRead = 64
	// tolerated is how many reads in a row may fail: the kernel fails one when it cannot
	// open a file again for us.
	tolerated = 100
)

// Watch calls opened with the path of each regular file that is opened on an overlay with
// this upper directory, from the overlay's root, until ctx ends, which is no error. It
// calls it from one goroutine. The same file may come many times.
func Watch(ctx context.Context, upper string, opened func(path string)) error {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return fmt.Errorf("watch what is opened on the overlay of %s: fanotify_init: %w", upper, err)
	}
	w := &watch{upper: upper, opened: opened, fd: fd, events: os.NewFile(uintptr(fd), "fanotify"), mounts: make(map[string]struct{})}
	ctx, cancel := context.WithCancel(ctx)
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		failed = w.read()
	})
	err = w.follow(ctx)
	// The deadline ends the read; without one, closing does.
	err = errors.Join(err, w.events.SetReadDeadline(time.Unix(1, 0)))
	wg.Wait()
	cancel()
	if err = errors.Join(err, failed, w.events.Close()); err != nil {
		return fmt.Errorf("watch what is opened on the overlay of %s: %w", upper, err)
	}
	return nil
}

type watch struct {
	upper  string
	opened func(path string)
	fd     int      // of events, which stays open until both goroutines have ended
	events *os.File // fanotify

	mu     sync.Mutex
	mounts map[string]struct{} // where overlays were mounted
}

// follow marks each overlay, from the first on, until ctx ends.
func (w *watch) follow(ctx context.Context) error {
	// Not by os.Open: the runtime would poll it, and so take the news away.
	fd, err := unix.Open("/proc/self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /proc/self/mountinfo: %w", err)
	}
	table := os.NewFile(uintptr(fd), "/proc/self/mountinfo")
	defer table.Close()
	ended, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ended.Close()
	stop := context.AfterFunc(ctx, func() { end.Close() })
	defer func() {
		if stop() {
			end.Close()
		}
	}()
	for ctx.Err() == nil {
		if err := w.mark(table); err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(ended.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for mounts: %w", err)
		}
	}
	return nil
}

// mark marks the overlays in a table of mounts.
func (w *watch) mark(table io.ReadSeeker) error {
	if _, err := table.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	found, err := mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		return m.FSType != "overlay" || !slices.Contains(strings.Split(m.VFSOptions, ","), "upperdir="+w.upper), false
	})
	if err != nil {
		return fmt.Errorf("read mounts: %w", err)
	}
	for _, m := range found {
		w.mu.Lock()
		w.mounts[m.Mountpoint] = struct{}{}
		w.mu.Unlock()
		// Again, also what is marked: numbers and places of mounts that have gone come again.
		err := unix.FanotifyMark(w.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, unix.AT_FDCWD, m.Mountpoint)
		// It may have gone by now.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("mark the overlay at %s: %w", m.Mountpoint, err)
		}
	}
	return nil
}

// read hands on what is opened, until the deadline.
func (w *watch) read() error {
	buf := make([]byte, eventsRead*eventSize)
	for lost := 0; ; {
		n, err := w.events.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			if lost++; lost > tolerated {
				return fmt.Errorf("read events: %w", err)
			}
			continue
		}
		lost = 0
		if err := w.handle(buf[:n]); err != nil {
			return err
		}
	}
}

// handle hands on events. Those that were lost, since we were too slow, are lost.
func (w *watch) handle(b []byte) error {
	for len(b) >= eventSize {
		var e unix.FanotifyEventMetadata
		if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &e); err != nil {
			return err
		}
		if e.Vers != unix.FANOTIFY_METADATA_VERSION || int(e.Event_len) < eventSize || int(e.Event_len) > len(b) {
			return fmt.Errorf("event of version %d and %d bytes", e.Vers, e.Event_len)
		}
		b = b[e.Event_len:]
		if e.Fd < 0 {
			continue
		}
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(e.Fd)))
		if err := errors.Join(err, unix.Close(int(e.Fd))); err != nil {
			return err
		}
		w.opened(w.relative(path))
	}
	return nil
}

// relative returns a path from the root of the overlay.
func (w *watch) relative(path string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for root := range w.mounts {
		if rest, ok := strings.CutPrefix(path, root+"/"); ok {
			return rest
		}
	}
	return strings.TrimPrefix(path, "/")
}
