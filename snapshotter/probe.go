//go:build linux

package snapshotter

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

// support is how this host mounts ipcs layers, found out by mounting one.
type support struct {
	image    string // modeFile or modeLoop
	metacopy bool   // overlays need metacopy=on for any redirect (before Linux 6.16)
	xino     bool   // xino=on gives all of an overlay one device number
	ids      error  // why ids cannot be mapped: ErrNoIDMap, wrapped
	err      error  // why neither way to mount an image works: ErrUnsupported, wrapped
}

// probe tries what mounts of containers need, the best way first. The image lies in the
// folder images, where those of chains will, since it depends on the file system whether
// the kernel mounts an EROFS from a file of it; mount points are in dir.
func probe(images, dir string) support {
	image := filepath.Join(images, tempPrefix+"probe")
	s, err := tryMounts(image, dir)
	if rerr := errors.Join(os.RemoveAll(image), os.RemoveAll(dir)); err == nil {
		err = rerr
	}
	if err != nil {
		s.err = fmt.Errorf("%w: %w; it takes root in the initial user namespace, EROFS (module erofs, and a loop device before Linux 6.12) and overlayfs of Linux 6.5 or later", ErrUnsupported, err)
	}
	return s
}

func (s support) report(log *slog.Logger) {
	if s.err != nil {
		log.Error("ipcs layers cannot be mounted; ordinary ones can", "err", s.err)
		return
	}
	log.Info("ipcs layers can be mounted", "erofs", s.image, "metacopy_always", s.metacopy, "xino", s.xino, "user_namespaces", s.ids == nil)
	if s.ids != nil {
		log.Info("containers with user namespaces cannot run on ipcs images", "err", s.ids)
	}
}

// tryMounts mounts one EROFS that has one file, whose data is elsewhere, and reads it
// through an overlay.
func tryMounts(image, dir string) (s support, err error) {
	data := []byte("data that a metadata layer redirects to\n")
	var (
		meta   = filepath.Join(dir, "meta")
		store  = filepath.Join(dir, "data")
		merged = filepath.Join(dir, "merged")
	)
	for _, d := range []string{meta, store, merged} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return s, err
		}
	}
	if err := os.WriteFile(filepath.Join(store, "object"), data, 0o600); err != nil {
		return s, err
	}
	tree := erofs.Inodes{
		{Mode: unix.S_IFDIR | 0o755, Entries: []erofs.Dirent{{Name: "file", Inode: 1}}},
		{Mode: unix.S_IFREG | 0o644, Nlink: 1, Size: uint64(len(data)), Xattrs: []erofs.Xattr{{Name: xattrMetacopy}, {Name: xattrRedirect, Value: "/object"}}},
	}
	if err := writeFile(image, func(f *os.File) error { return erofs.Write(f, tree, erofs.Options{UUID: [16]byte{1}}) }); err != nil {
		return s, err
	}
	s.image = modeFile
	if err = mountImage(modeFile, image, meta); err != nil {
		s.image = modeLoop
		if lerr := mountImage(modeLoop, image, meta); lerr != nil {
			return s, errors.Join(err, lerr)
		}
	}
	defer func() { err = errors.Join(err, unmount(meta)) }()
	options := "lowerdir=" + meta + "::" + store
	if _, err = tryOverlay(merged, options, data); err != nil {
		s.metacopy = true
		options += "," + strings.Join(metacopyOptions(), ",")
		if _, merr := tryOverlay(merged, options, data); merr != nil {
			return s, errors.Join(err, merr)
		}
	}
	oneDevice, xerr := tryOverlay(merged, options+","+xinoOption, data)
	s.xino = oneDevice && xerr == nil
	if err := tryMapping(meta, filepath.Join(dir, "mapped"), merged, options, data); err != nil {
		s.ids = fmt.Errorf("%w: %w; it takes EROFS of Linux 5.19 or later and pidfds", ErrNoIDMap, err)
	}
	return s, nil
}

// tryMapping reads the file through an overlay on the EROFS with its ids mapped.
func tryMapping(meta, mapped, merged, options string, data []byte) (err error) {
	const host = 1000
	if err := os.Mkdir(mapped, 0o700); err != nil {
		return err
	}
	ns, err := mount.GetUsernsFD(fmt.Sprintf("0:%d:1", host), fmt.Sprintf("0:%d:1", host))
	if err != nil {
		return fmt.Errorf("make a user namespace: %w", err)
	}
	defer ns.Close()
	if err := mapIDs(meta, mapped, int(ns.Fd())); err != nil {
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
	_, err = tryOverlay(merged, strings.Replace(options, "="+meta+"::", "="+mapped+"::", 1), data)
	return err
}

// tryOverlay reads a file through an overlay, and says whether it has the device number
// of its folder.
func tryOverlay(dir, options string, want []byte) (oneDevice bool, err error) {
	if err := unix.Mount("overlay", dir, "overlay", unix.MS_RDONLY, options); err != nil {
		return false, fmt.Errorf("mount an overlay with %s: %w", options, err)
	}
	defer func() { err = errors.Join(err, unmount(dir)) }()
	file := filepath.Join(dir, "file")
	var st, folder unix.Stat_t
	if err := errors.Join(unix.Stat(file, &st), unix.Stat(dir, &folder)); err != nil {
		return false, err
	}
	return st.Dev == folder.Dev, sameFile(file, want)
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
