//go:build linux

package snapshotter

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/objects"
)

// support is how this host mounts ipcs layers, found out by mounting one.
type support struct {
	image ImageMode // one of them, but not ImageAuto
	data  DataMode  // one of them, but not DataAuto
	xino  bool      // xino=on gives all of an overlay one device number
	ids   error     // why ids cannot be mapped: ErrNoIDMap, wrapped
	err   error     // why no way to mount works: ErrUnsupported, wrapped
}

// probe tries what mounts of containers need, the best way first, or only what mounts says.
func (t *trial) probe() support {
	s, err := t.run()
	if rerr := errors.Join(os.RemoveAll(t.image), os.RemoveAll(t.dir)); err == nil {
		err = rerr
	}
	if err != nil {
		s.err = fmt.Errorf("%w: %w; it takes overlayfs (in a user namespace that of Linux 5.11), and EROFS (module erofs, and a loop device before Linux 6.12) or /dev/fuse", ErrUnsupported, err)
	}
	return s
}

func (s support) report(log *slog.Logger) {
	if s.err != nil {
		log.Error("ipcs layers cannot be mounted; ordinary ones can", "err", s.err)
		return
	}
	log.Info("ipcs layers can be mounted", "image", s.image, "data", s.data, "xino", s.xino, "user_namespaces", s.ids == nil)
	if s.ids != nil {
		log.Info("containers with user namespaces cannot run on ipcs images", "err", s.ids)
	}
}

// A trial mounts one EROFS that has one file, whose data is elsewhere, and reads it through
// overlays.
type trial struct {
	// image is where the image is written: where those of chains will be, since it depends on
	// the file system whether the kernel mounts an EROFS from a file of it.
	image   string
	dir     string   // of mount points
	hide    string   // makeHide has made it
	options []string // of any overlay
	serve   ServeImage
	mounts  Mounts
}

// probeData is what the file holds.
const probeData = "data that a metadata layer redirects to\n"

func (t *trial) path(name string) string { return filepath.Join(t.dir, name) }

func (t *trial) run() (s support, err error) {
	object := filepath.Join(t.path("data"), objects.Hidden, "object")
	for _, d := range []string{t.path("meta"), t.path("merged"), filepath.Dir(object)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return s, err
		}
	}
	if err := os.WriteFile(object, []byte(probeData), 0o600); err != nil {
		return s, err
	}
	attrs := attributesOf(t.options)
	tree := erofs.Inodes{
		{Mode: unix.S_IFDIR | 0o755, Entries: []erofs.Dirent{{Name: "file", Inode: 1}}},
		{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(len(probeData)), Xattrs: attrs.redirect("/" + objects.Hidden + "/object")},
	}
	if err := writeFile(t.image, func(f *os.File) error { return erofs.Write(f, tree, erofs.Options{UUID: [16]byte{1}}) }); err != nil {
		return s, err
	}
	if s.image, err = t.mountImage(); err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, unmount(t.path("meta"))) }()
	l, err := t.overlay(&s)
	if err != nil {
		return s, err
	}
	l.options = append(l.options, xinoOption)
	oneDevice, xerr := t.try(l)
	if s.xino = oneDevice && xerr == nil; !s.xino {
		l.options = l.options[:len(l.options)-1]
	}
	if err := t.mapping(l); err != nil {
		s.ids = fmt.Errorf("%w: %w; it takes EROFS of Linux 5.19 (or FUSE of Linux 6.12) and pidfds", ErrNoIDMap, err)
	}
	return s, nil
}

// mountImage mounts the image in the first way that works.
func (t *trial) mountImage() (ImageMode, error) {
	var errs []error
	for _, mode := range []ImageMode{ImageFile, ImageLoop, ImageFuse} {
		if t.mounts.Image != ImageAuto && t.mounts.Image != mode || t.mounts.Data == DataServed && mode != ImageFuse {
			continue
		}
		err := mountImage(mode, t.serve, t.image, t.path("meta"))
		if err == nil {
			return mode, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

// overlay returns the first overlay that can be read, and says which it is.
func (t *trial) overlay(s *support) (*lower, error) {
	var errs []error
	for _, mode := range []DataMode{DataOnly, DataMetacopy, DataHidden, DataServed} {
		if t.mounts.Data != DataAuto && t.mounts.Data != mode {
			continue
		}
		l := &lower{dirs: []string{t.path("meta")}, data: []string{t.path("data")}, options: slices.Clone(t.options)}
		var err error
		switch mode {
		case DataMetacopy:
			l.options = append(l.options, metacopyOptions()...)
		case DataHidden:
			l.hide = t.hide
			l.options = append(l.options, metacopyOptions()...)
		case DataServed:
			err = t.serveData(s.image, l)
		}
		if err == nil {
			_, err = t.try(l)
		}
		if err == nil {
			s.data = mode
			return l, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", mode, err))
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("no way to mount is called %q", t.mounts.Data)
	}
	return nil, errors.Join(errs...)
}

// serveData has who serves the image read the file, too.
func (t *trial) serveData(image ImageMode, l *lower) error {
	if image != ImageFuse {
		return fmt.Errorf("images are mounted in mode %q", image)
	}
	// Overlays want two layers, or an upper directory.
	l.dirs, l.data = append(l.dirs, t.path("data")+"/"+objects.Hidden+"/none"), nil
	if err := os.Mkdir(l.dirs[1], 0o700); err != nil {
		return err
	}
	if err := unmount(t.path("meta")); err != nil {
		return err
	}
	return mountImage(image, t.serve, t.image, t.path("meta"), t.path("data"))
}

func (t *trial) try(l *lower) (oneDevice bool, err error) {
	return tryOverlay(t.path("merged"), strings.Join(append([]string{l.option()}, l.options...), ","))
}

// mapping reads the file through an overlay on the EROFS with its ids mapped.
func (t *trial) mapping(l *lower) (err error) {
	const host = 1000
	mapped := t.path("mapped")
	if err := os.Mkdir(mapped, 0o700); err != nil {
		return err
	}
	ns, err := mount.GetUsernsFD(fmt.Sprintf("0:%d:1", host), fmt.Sprintf("0:%d:1", host))
	if err != nil {
		return fmt.Errorf("make a user namespace: %w", err)
	}
	defer ns.Close()
	if err := mapIDs(t.path("meta"), mapped, int(ns.Fd())); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount(mapped)) }()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(mapped, "file"), &st); err != nil {
		return err
	}
	if st.Uid != host || st.Gid != host {
		return fmt.Errorf("a file of 0:0 has owner %d:%d where it should have %d:%d", st.Uid, st.Gid, host, host)
	}
	on := *l
	on.dirs = append([]string{mapped}, l.dirs[1:]...)
	_, err = t.try(&on)
	return err
}

// tryOverlay reads the file through an overlay, wants nothing else to be there, and says
// whether it has the device number of its folder.
func tryOverlay(dir, options string) (oneDevice bool, err error) {
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, options); err != nil {
		return false, fmt.Errorf("mount an overlay with %s: %w", options, err)
	}
	defer func() { err = errors.Join(err, unmount(dir)) }()
	file := filepath.Join(dir, "file")
	var st, folder unix.Stat_t
	if err := errors.Join(unix.Stat(file, &st), unix.Stat(dir, &folder)); err != nil {
		return false, err
	}
	if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
		return false, fmt.Errorf("overlay with %s: it shows %d files, not 1: %w", options, len(all), cmp.Or(err, ErrUnsupported))
	}
	return st.Dev == folder.Dev, sameFile(file, []byte(probeData))
}

// xinoOption gives files and folders of an overlay on several file systems one device
// number, as they have on overlays of ordinary layers. Without it, whatever stays on one
// file system (tar --one-file-system, du -x, rsync -x) leaves out files of the image.
const xinoOption = "xino=on"

// metacopyOptions are for overlays with metadata that redirects across metadata layers.
// With an upper directory, redirect_dir is on or metacopy is refused.
func metacopyOptions() []string { return []string{"metacopy=on", "redirect_dir=on"} }

// clearMounts unmounts all that a process before left in the folders below state. What
// overlays of containers lie on stays with them.
func clearMounts(state string, dirs []string) error {
	var errs []error
	for _, dir := range dirs {
		prefix := filepath.Join(state, dir)
		found, err := mountinfo.GetMounts(mountinfo.PrefixFilter(prefix))
		if err != nil {
			return fmt.Errorf("read the mounts of this process: %w", err)
		}
		for i := len(found) - 1; i >= 0; i-- { // what was mounted last lies on top
			if err := unix.Unmount(found[i].Mountpoint, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil {
				errs = append(errs, fmt.Errorf("unmount %s, left by a process before: %w", found[i].Mountpoint, err))
			}
		}
		if err := os.MkdirAll(prefix, 0o700); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, removeEmptyDirs(prefix))
	}
	return errors.Join(errs...)
}

// removeEmptyDirs removes the mount points in dir.
func removeEmptyDirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && e.IsDir() && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return nil
}

// warnNamespace warns when containerd, in the namespace of the first process, would not
// see what is mounted in state.
func warnNamespace(log *slog.Logger, state string) {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return
	}
	first, err := os.Readlink("/proc/1/ns/mnt")
	if err != nil || own == first {
		return
	}
	parents, err := mountinfo.GetMounts(mountinfo.ParentsFilter(state))
	if err != nil {
		return
	}
	var on mountinfo.Info
	for _, m := range parents {
		if len(m.Mountpoint) >= len(on.Mountpoint) {
			on = *m
		}
	}
	if !strings.Contains(on.Optional, "shared:") {
		log.Warn("this process has a mount namespace of its own, and its mounts are not shared: unless containerd runs in the same namespace, containers will not start; put the state folder on a mount with shared propagation, or run the daemon without PrivateMounts and the like",
			"state", state, "mount", on.Mountpoint)
	}
}
