//go:build linux

package opens

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// eventSize is the length of an event, and eventsRead how many are read at a time.
	eventSize  = unix.FAN_EVENT_METADATA_LEN
	eventsRead = 64
	// tolerated is how many reads in a row may fail: the kernel fails one when it cannot
	// open a file again for us.
	tolerated = 100
	// maxQueued is how many events the kernel keeps for us to read.
	maxQueued = 16384
)

// A group is a fanotify group, and the overlays that it tells of.
type group struct {
	opened func(path string)
	events *os.File // fanotify

	mu     sync.Mutex
	fd     int  // of events; -1 when they are closed
	once   bool // ignore what was opened, until forget
	places []overlay
	marked []overlay // at the last mark
}

func newGroup(opened func(path string), once bool) (*group, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fanotify_init: %w", err)
	}
	return &group{opened: opened, events: os.NewFile(uintptr(fd), "fanotify"), fd: fd, once: once}, nil
}

// mark marks those of the overlays that it has not marked yet, or that have gone and come
// again since, with the same number at the same place. Paths are of all places.
func (g *group) mark(found, places []overlay, marked *marked) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.places = places
	if g.fd < 0 {
		return nil
	}
	for _, o := range found {
		if marked.has(o.mount) && slices.Contains(g.marked, o) {
			continue
		}
		if err := g.markOne(o, marked); err != nil {
			return fmt.Errorf("mark the overlay at %s: %w", o.at, err)
		}
	}
	g.marked = slices.Clone(found)
	return nil
}

// markOne marks an overlay, unless it has gone by now: then its place is a folder of a file
// system that is not ours to watch. What is opened through the mount itself is ignored:
// containers see the overlay through mounts of their own.
func (g *group) markOne(o overlay, marked *marked) error {
	dir, err := unix.Open(o.at, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	var st unix.Statx_t
	if err := unix.Statx(dir, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return err
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return errors.New("the kernel does not say which mount a folder is of, as Linux does from 5.8 on")
	}
	if st.Mnt_id != uint64(o.mount) {
		return nil
	}
	if err := ignoreMount(g.fd, dir); err != nil {
		return err
	}
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, dir, ""); err != nil {
		return err
	}
	return marked.add(dir)
}

// ignore ignores the file of an event from now on. The mark holds nothing: it goes when the
// kernel forgets the inode.
func (g *group) ignore(file int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.once {
		return
	}
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORED_MASK | unix.FAN_MARK_IGNORED_SURV_MODIFY | unix.FAN_MARK_EVICTABLE
	if errors.Is(unix.FanotifyMark(g.fd, flags, unix.FAN_OPEN, file, ""), unix.EINVAL) {
		g.once = false // before Linux 5.19: all opens are told
	}
}

// forget makes what was ignored be told again.
func (g *group) forget() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.once || g.fd < 0 {
		return nil
	}
	return unix.FanotifyMark(g.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "")
}

// stop ends read, or has it end at once.
func (g *group) stop() { _ = g.events.SetReadDeadline(time.Unix(1, 0)) } // fails if read has ended

// read hands on what is opened until stop, also what was opened before that and not read yet,
// and closes the group.
func (g *group) read() (err error) {
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.fd = -1
		err = errors.Join(err, g.events.Close())
	}()
	buf := make([]byte, eventsRead*eventSize)
	for lost := 0; ; {
		n, err := g.events.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return g.drain(buf)
		}
		if err != nil {
			if lost++; lost > tolerated {
				return fmt.Errorf("read events: %w", err)
			}
			continue
		}
		lost = 0
		if err := g.handle(buf[:n]); err != nil {
			return err
		}
	}
}

// drain hands on the events that wait, of which the kernel keeps no more than maxQueued.
func (g *group) drain(buf []byte) error {
	for left := maxQueued; left > 0; left -= eventsRead {
		n, err := unix.Read(g.fd, buf)
		if err != nil || n == 0 {
			return nil // EAGAIN: there are no more
		}
		if err := g.handle(buf[:n]); err != nil {
			return err
		}
	}
	return nil
}

// handle hands on events. Those that were lost, since we were too slow, are lost.
func (g *group) handle(b []byte) error {
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
		g.ignore(int(e.Fd))
		_ = unix.Close(int(e.Fd)) // nothing was written
		if err == nil {           // a container can make paths that are too long to be told
			g.opened(g.relative(path))
		}
	}
	return nil
}

// relative returns a path from the root of the overlay.
func (g *group) relative(path string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, o := range g.places {
		if rest, ok := strings.CutPrefix(path, o.at+"/"); ok {
			return rest
		}
	}
	return strings.TrimPrefix(path, "/")
}
