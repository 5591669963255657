//go:build linux

// Package opens tells which files are opened on overlays that somebody else mounts: also
// those that are on disk, whose reads no file system of ours sees.
//
// The kernel tells when the mounts of this namespace change (poll of /proc/self/mountinfo).
// Each overlay with an upper directory that is watched is marked with fanotify as it
// appears: containerd mounts a container's overlay for a moment when it makes the container,
// and again when it starts it. A mark is of the file system, and so it tells of containers
// too, which see the overlay in namespaces of their own. The kernel drops it with the
// overlay.
//
// An event comes with a descriptor, whose link in /proc is a path: from the root of the
// container, which is that of the overlay, or from ours. Until the event was read and the
// descriptor closed, the mount that the file was opened through is busy. So what is opened
// through a mount of this namespace is ignored: containerd mounts overlays for a moment,
// reads from them, and unmounts them. A container's own mount goes with its namespace. (File
// handles hold nothing, but the kernel has none for a whole overlay without nfs_export.)
//
// Watch tells of every open on one overlay, for a while. Track tells of many overlays for as
// long as they are mounted, and of each file once in an interval: then it has the kernel
// ignore the file, so that what is opened again and again costs nothing.
//
// Concurrency: Watch and Track have a goroutine that waits for mounts, which is the caller's,
// and one for each group of overlays that reads events. They return when all have ended.
package opens

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Watch calls opened with the path of each regular file that is opened on an overlay with
// this upper directory, from the overlay's root, until ctx ends, which is no error. It
// calls it from one goroutine. The same file may come many times.
func Watch(ctx context.Context, upper string, opened func(path string)) error {
	fail := func(err error) error {
		return fmt.Errorf("watch what is opened on the overlay of %s: %w", upper, err)
	}
	g, err := newGroup(opened, false)
	if err != nil {
		return fail(err)
	}
	marked := &marked{fd: g.fd} // which has no other marks: the kernel lets an owner have few groups
	ctx, cancel := context.WithCancel(ctx)
	var failed error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		failed = g.read()
	})
	var places []overlay
	err = follow(ctx, marked, func(found []overlay) error {
		found = slices.DeleteFunc(found, func(o overlay) bool { return o.upper != upper })
		for _, o := range found {
			if !slices.Contains(places, o) {
				places = append(places, o) // and stays: events may come after the mount has gone
			}
		}
		return g.mark(found, slices.Clone(places), marked)
	})
	g.stop()
	wg.Wait()
	cancel()
	if err = errors.Join(err, failed); err != nil {
		return fail(err)
	}
	return nil
}

// overlay is one that is mounted.
type overlay struct {
	upper string
	at    string // where
	mount int    // its number
}

// follow calls scan with the overlays that are mounted, and again whenever mounts have
// changed, until ctx ends. marked is looked at after each table: what it has then is what the
// table has.
func follow(ctx context.Context, marked *marked, scan func([]overlay) error) error {
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
		found, err := overlays(table)
		if err == nil {
			err = marked.look()
		}
		if err == nil {
			err = scan(found)
		}
		if err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(ended.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for mounts: %w", err)
		}
	}
	return nil
}

// unescape undoes what the kernel writes in place of characters that separate.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\054`, ",", `\134`, `\`)

// overlays returns those in a table of mounts that can be written to.
func overlays(table io.ReadSeeker) (found []overlay, err error) {
	if _, err := table.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	_, err = mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		if m.FSType == "overlay" {
			for option := range strings.SplitSeq(m.VFSOptions, ",") {
				if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
					found = append(found, overlay{unescape.Replace(upper), m.Mountpoint, m.ID})
				}
			}
		}
		return true, false
	})
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	return found, nil
}
