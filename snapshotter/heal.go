//go:build linux

package snapshotter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
)

// healInterval is how often containers are given what has come.
const healInterval = 5 * time.Second

// A healer helps containers whose lazy file system died under them: the process that held it,
// and the daemon before this one. Their overlays lie on it for as long as they are mounted, and
// what is not on disk cannot be read through them. So everything is fetched that they may read;
// what they have not opened before, they then find on disk. Of what they have opened, the kernel
// remembers that it lay on the dead file system: a reconfiguration of the overlay, which changes
// nothing, makes it forget that of all that is not open at the time.
//
// Which overlays those are is kept in a file until it is done, since a process that follows could
// not tell: what is mounted looks the same, before and after.
//
// One goroutine fetches, and one tells the kernel.
type healer struct {
	get  func(ctx context.Context, roots []cid.Cid) error // all files of layers
	lazy string                                           // where the lazy file system is mounted
	file string                                           // names the overlays that are not healed yet
	log  *slog.Logger

	broken atomic.Int64 // overlays of which not all is here

	stop context.CancelFunc // nil unless there is something to heal
	wg   sync.WaitGroup
}

// deviceOf returns the device of what is mounted at dir, "" if nothing is. It does not ask the
// file system, which may be waiting for this process.
func deviceOf(dir string) (string, error) {
	found, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(dir))
	if err != nil || len(found) == 0 {
		return "", err
	}
	last := found[len(found)-1]
	return fmt.Sprintf("%d:%d", last.Major, last.Minor), nil
}

// overlay is one that is mounted.
type overlay struct {
	ID  int    `json:"id"` // of the mount: another may be mounted there later
	Dir string `json:"dir"`
}

// overlaysOn returns the overlays that have a directory, or what is below it, as a layer.
func overlaysOn(dir string) ([]overlay, error) {
	found, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		layers := strings.FieldsFunc(m.VFSOptions, func(r rune) bool { return r == ',' || r == '=' || r == ':' })
		lies := func(layer string) bool { return layer == dir || strings.HasPrefix(layer, dir+"/") }
		return m.FSType != "overlay" || !slices.ContainsFunc(layers, lies), false
	})
	if err != nil {
		return nil, err
	}
	var overlays []overlay
	for _, m := range found {
		overlays = append(overlays, overlay{m.ID, m.Mountpoint})
	}
	return overlays, nil
}

// toHeal returns the overlays on a lazy file system that has died: if it just did, all that there
// are, and else those that a process before had not healed when it ended.
func (h *healer) toHeal(died bool) ([]overlay, error) {
	overlays, err := overlaysOn(h.lazy)
	if err != nil || died {
		return overlays, err
	}
	text, err := os.ReadFile(h.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("containers that are to be healed: %w", err)
	}
	var before []overlay
	if err := json.Unmarshal(text, &before); err != nil {
		h.log.Error("it is not known which containers were to be healed: all are", "err", err)
		return overlays, nil
	}
	return slices.DeleteFunc(overlays, func(o overlay) bool { return !slices.Contains(before, o) }), nil
}

// remember keeps the overlays that are to be healed for the process that follows.
func (h *healer) remember(overlays []overlay) error {
	return writeFile(h.file, func(f *os.File) error { return json.NewEncoder(f).Encode(overlays) })
}

// forget says that there is nothing to heal any more.
func (h *healer) forget() error {
	if err := os.Remove(h.file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("containers are healed, and will be again: %w", err)
	}
	return nil
}

// heal begins to heal the containers that run on layers, if there are any that need it: those on
// the lazy file system if it has just died, and those that a process before has not healed. Of
// ctx only the values count.
func (h *healer) heal(ctx context.Context, roots []cid.Cid, died bool) error {
	overlays, err := h.toHeal(died)
	if err != nil {
		return err
	}
	if len(overlays) == 0 {
		return h.forget()
	}
	if err := h.remember(overlays); err != nil {
		return err
	}
	h.log.Error("the lazy files of containers are lost, since daemon and relay died together: what they have not read yet fails until all is here; start them again where you can", "overlays", len(overlays), "layers", len(roots))
	h.broken.Store(int64(len(overlays)))
	ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	here := make(chan struct{})
	h.wg.Go(func() {
		defer close(here)
		h.fetch(ctx, roots)
	})
	h.wg.Go(func() {
		ticker := time.NewTicker(healInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				h.refresh(overlays)
			case <-here:
				h.refresh(overlays)
				if ctx.Err() == nil {
					if err := h.forget(); err != nil {
						h.log.Warn("cannot remove a file", "err", err)
					}
					h.broken.Store(0)
					h.log.Warn("all files of containers that had lost them are here: what they open from now on can be read; what they hold open cannot, until they open it again", "overlays", len(overlays))
				}
				return
			}
		}
	})
	return nil
}

// fetch gets all files, and tries again what could not be had.
func (h *healer) fetch(ctx context.Context, roots []cid.Cid) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := h.get(ctx, roots)
		if err == nil || ctx.Err() != nil {
			return
		}
		h.log.Error("files that containers have lost could not be had: trying again later", "pause", pause, "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// refresh makes the kernel look up anew what overlays have, where they are still mounted.
func (h *healer) refresh(overlays []overlay) {
	for _, o := range overlays {
		if err := reconfigure(o.Dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EINVAL) {
			h.log.Warn("a container may not find what is here again; start it again", "overlay", o.Dir, "err", err)
		}
	}
}

// reconfigure has a file system change nothing, for which the kernel drops what it remembers
// of the names that are not in use.
func reconfigure(dir string) error {
	fd, err := unix.Fspick(unix.AT_FDCWD, dir, unix.FSPICK_CLOEXEC)
	if err != nil {
		return err
	}
	return errors.Join(unix.FsconfigReconfigure(fd), unix.Close(fd))
}

// close ends it and waits.
func (h *healer) close() {
	if h.stop != nil {
		h.stop()
		h.wg.Wait()
	}
}

// getAll gets all files of layers, at full speed: somebody is failing for want of them.
func (s *Snapshotter) getAll(ctx context.Context, roots []cid.Cid) error {
	if s.prefetch == nil {
		return nil
	}
	if err := s.learn(ctx, run{roots: roots}); err != nil {
		return err
	}
	all := func(yield func(ipfs.File) bool) { distinct(s.files.tables(roots), nil, yield) }
	return s.prefetch.Prefetch(ctx, all, fetch.Profile)
}

// Broken returns how many containers cannot read all of their image, since what they lay on has
// died.
func (s *Snapshotter) Broken() int64 { return s.healer.broken.Load() }
