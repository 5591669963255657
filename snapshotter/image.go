//go:build linux

package snapshotter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
)

// erofsMagic is what statfs says of an EROFS.
const erofsMagic = 0xe0f5e1e2

// A ServeImage mounts the EROFS image at path on dir without the kernel's EROFS, by a process
// that outlives this one (package metafs). With folders of data, that process also reads the
// files, from the first that has one, and shows none of the attributes for overlays.
type ServeImage func(path, dir string, data ...string) error

// mountImage mounts the EROFS image at path on dir in the given mode.
func mountImage(mode ImageMode, serve ServeImage, path, dir string, data ...string) error {
	if mode == ImageFuse {
		if serve == nil {
			return errNoServer
		}
		return serve(path, dir, data...)
	}
	const flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID // containers see it through an overlay only
	if mode == ImageFile {
		if err := unix.Mount(path, dir, "erofs", flags, ""); err != nil {
			return fmt.Errorf("mount %s as EROFS from its file: %w", path, err)
		}
		return nil
	}
	// The device goes away by itself when the mount does.
	loop, err := mount.SetupLoop(path, mount.LoopParams{Readonly: true, Autoclear: true})
	if err != nil {
		return fmt.Errorf("set up a loop device for %s: %w", path, err)
	}
	defer loop.Close()
	if err := unix.Mount(loop.Name(), dir, "erofs", flags, ""); err != nil {
		return fmt.Errorf("mount %s as EROFS from %s: %w", path, loop.Name(), err)
	}
	return nil
}

// errNoServer says that Config has no ServeImage.
var errNoServer = errors.New("no process serves images")

// isImageMount says whether an image is mounted at dir.
func isImageMount(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && (uint32(st.Type) == erofsMagic || st.Type == unix.FUSE_SUPER_MAGIC)
}

// unmount unmounts what is at dir, now or as soon as nobody uses it. It is no error if
// nothing is mounted.
func unmount(dir string) error {
	err := unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(dir, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", dir, err)
	}
	return nil
}

// removeMount unmounts what is at dir and removes the directory.
func removeMount(dir string) error {
	if err := unmount(dir); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// writeFile writes a file that other processes see complete or not at all. It is not
// durable: what it writes can be had again.
func writeFile(path string, write func(f *os.File) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// tempPrefix begins the names of files that are not complete.
const tempPrefix = "new-"

// sameFile says whether the file at path holds exactly want.
func sameFile(path string, want []byte) error {
	got, err := os.ReadFile(path)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%s holds %d bytes that are not expected", path, len(got))
	}
	return err
}
