//go:build linux

package snapshotter

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// held keeps mounts that snapshots lie on, in one folder: chains mounted as they are,
// read-only, for those who need the parents of a snapshot as one plain path (State/merged),
// and directories with their ids mapped (State/mapped). Each is shared by the snapshots that
// need the same, and lives as long as one of them uses it.
type held struct {
	dir string
	log *slog.Logger

	mu     sync.Mutex
	all    map[string]map[string]struct{} // name of the mount to the keys of the snapshots
	closed bool
}

func newHeld(dir string, log *slog.Logger) *held {
	return &held{dir: dir, log: log, all: make(map[string]map[string]struct{})}
}

// ensure has mount, which is given an empty directory, make the mount of that name for the
// snapshot key, unless it is there, and returns where it is.
func (m *held) ensure(name, key string, mount func(dir string) error) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return "", errClosed
	}
	dir := filepath.Join(m.dir, name)
	if keys, ok := m.all[name]; ok {
		keys[key] = struct{}{}
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := mount(dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	m.all[name] = map[string]struct{}{key: {}}
	return dir, nil
}

// release says that a snapshot needs its mounts no longer, if it had any.
func (m *held) release(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, keys := range m.all {
		if _, ok := keys[key]; !ok {
			continue
		}
		delete(keys, key)
		if len(keys) > 0 {
			continue
		}
		delete(m.all, name)
		if err := removeMount(filepath.Join(m.dir, name)); err != nil {
			m.log.Warn("cannot unmount what a snapshot lay on", "key", key, "err", err)
		}
	}
}

// close unmounts all.
func (m *held) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	var errs []error
	for name := range m.all {
		errs = append(errs, removeMount(filepath.Join(m.dir, name)))
	}
	clear(m.all)
	return errors.Join(errs...)
}

// mountMerged mounts a read-only overlay. One option for each directory (Linux 6.8) has
// no limit of a page, which mount(2) has.
func mountMerged(dir string, l *lower) error {
	err := mountByLayer(dir, l)
	if err == nil {
		return nil
	}
	options := append([]string{l.option()}, l.options...)
	if merr := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, strings.Join(options, ",")); merr != nil {
		return fmt.Errorf("mount the parents of a snapshot as one directory: %w; and with mount(2): %w", err, merr)
	}
	return nil
}

func mountByLayer(dir string, l *lower) (err error) {
	fd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("fsopen: %w", err)
	}
	defer unix.Close(fd)
	set := func(key, value string) {
		if err == nil {
			if serr := unix.FsconfigSetString(fd, key, value); serr != nil {
				err = fmt.Errorf("fsconfig %s=%s: %w", key, value, serr)
			}
		}
	}
	set("source", "overlay")
	for _, d := range l.layers() {
		set("lowerdir+", d)
	}
	if l.hide == "" {
		for _, d := range l.data {
			set("datadir+", d)
		}
	}
	for _, option := range l.options {
		if key, value, ok := strings.Cut(option, "="); ok {
			set(key, value)
		} else if err == nil {
			err = unix.FsconfigSetFlag(fd, option)
		}
	}
	if err != nil {
		return err
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return fmt.Errorf("create overlay: %w", err)
	}
	mnt, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY)
	if err != nil {
		return fmt.Errorf("fsmount: %w", err)
	}
	defer unix.Close(mnt)
	if err := unix.MoveMount(mnt, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("move_mount: %w", err)
	}
	return nil
}
