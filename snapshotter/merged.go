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
	all    map[string]*heldMount // by name
	closed bool
}

// heldMount is one that snapshots use.
type heldMount struct {
	keys map[string]struct{} // of the snapshots
	on   string              // file systems that it lies on
}

func newHeld(dir string, log *slog.Logger) *held {
	return &held{dir: dir, log: log, all: make(map[string]*heldMount)}
}

// ensure has mount, which is given an empty directory, make the mount of that name for the
// snapshot key, unless it is there, and returns where it is. A mount on other file systems than
// those at the directories on lies on what has died, and was mounted anew: it is made anew, too.
func (m *held) ensure(name, key string, on []string, mount func(dir string) error) (string, error) {
	below, err := fileSystems(on)
	if err != nil {
		return "", err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return "", errClosed
	}
	dir := filepath.Join(m.dir, name)
	h, ok := m.all[name]
	if ok && h.on == below {
		h.keys[key] = struct{}{}
		return dir, nil
	}
	if ok {
		m.log.Warn("what snapshots lie on has died: it is mounted anew", "dir", dir)
		if err := unmount(dir); err != nil {
			return "", err
		}
		h.on = "" // until it is
	} else {
		h = &heldMount{keys: make(map[string]struct{})}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := mount(dir); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	h.keys[key], h.on = struct{}{}, below
	m.all[name] = h
	return dir, nil
}

// fileSystems names the file systems of directories. As long as something is mounted on one that
// has died, no other is given its number.
func fileSystems(dirs []string) (string, error) {
	var names strings.Builder
	for _, dir := range dirs {
		var st unix.Stat_t
		if err := unix.Stat(dir, &st); err != nil {
			return "", fmt.Errorf("look at %s: %w", dir, err)
		}
		fmt.Fprintf(&names, "%d ", st.Dev)
	}
	return names.String(), nil
}

// release says that a snapshot needs its mounts no longer, if it had any.
func (m *held) release(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, h := range m.all {
		if _, ok := h.keys[key]; !ok {
			continue
		}
		delete(h.keys, key)
		if len(h.keys) > 0 {
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
	if merr := mountByPage(dir, l); merr != nil {
		return fmt.Errorf("mount the parents of a snapshot as one directory: %w; and with mount(2): %w", err, merr)
	}
	return nil
}

// mountByPage mounts with mount(2). If a page does not hold the names of the directories, they are named by
// descriptors, of which it holds more than 200.
func mountByPage(dir string, l *lower) error {
	if !l.fits() {
		short, closeAll, err := l.byDescriptors()
		if err != nil {
			return err
		}
		defer closeAll()
		if l = short; !l.fits() {
			return fmt.Errorf("%d directories are more than its options hold; Linux 6.8 has no such limit: %w", len(l.layers()), unix.E2BIG)
		}
	}
	return unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, strings.Join(append([]string{l.option()}, l.options...), ","))
}

// byDescriptors returns l with each directory named by a descriptor that is open until closeAll is called.
func (l *lower) byDescriptors() (short *lower, closeAll func(), err error) {
	var open []*os.File
	closeAll = func() {
		for _, f := range open {
			_ = f.Close() // nothing was written
		}
	}
	name := func(dir string) string {
		fd, oerr := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if oerr != nil {
			err = errors.Join(err, &os.PathError{Op: "open", Path: dir, Err: oerr})
			return ""
		}
		open = append(open, os.NewFile(uintptr(fd), dir))
		return fmt.Sprint("/proc/self/fd/", fd)
	}
	s := *l
	s.dirs, s.data = nil, nil
	for _, dir := range l.dirs {
		s.dirs = append(s.dirs, name(dir))
	}
	for _, dir := range l.data {
		s.data = append(s.data, name(dir))
	}
	if l.hide != "" {
		s.hide = name(l.hide)
	}
	if err != nil {
		closeAll()
		return nil, nil, err
	}
	return &s, closeAll, nil
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
