//go:build linux

package snapshotter

import (
	"errors"
	"path"
	"strconv"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"
)

// names finds which object a path of a container is.
type names []int // descriptors of the mounted EROFS images, the topmost first

func openNames(dirs []string) names {
	var n names
	for _, dir := range dirs {
		// One that is gone has no names.
		if fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err == nil {
			n = append(n, fd)
		}
	}
	return n
}

func (n names) close() {
	for _, fd := range n {
		_ = unix.Close(fd) // nothing was written
	}
}

// cid returns the object at a path. The container may have put something else there, or a
// symlink on the way to it, which must not lead out of the image.
func (n names) cid(at string) (cid.Cid, bool) {
	for _, root := range n {
		fd, err := unix.Openat2(root, at, &unix.OpenHow{
			Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV,
		})
		if err != nil {
			continue
		}
		buf := make([]byte, 256)
		size, err := unix.Getxattr("/proc/self/fd/"+strconv.Itoa(fd), redirectXattr, buf)
		if err = errors.Join(err, unix.Close(fd)); err != nil {
			continue
		}
		if c, err := cid.Decode(path.Base(string(buf[:size]))); err == nil {
			return c, true
		}
	}
	return cid.Undef, false
}
