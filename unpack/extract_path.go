//go:build linux

package unpack

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxOpenDirs is how many directories of one path a dirs holds open. Paths of a layer have
// up to layer.MaxDepth components, and a process is not sure to get so many descriptors.
const maxOpenDirs = 256

// dirs opens the directories of an index for one goroutine. It holds those of the path that
// was opened last, so that going through an index in its order opens each directory once.
type dirs struct {
	x     *extraction
	stack []openDir // the root, then some that are on one path, the lowest last
	down  []int32   // memory of open
}

type openDir struct {
	entry int32
	fd    int
}

func newDirs(x *extraction) *dirs {
	return &dirs{x: x, stack: []openDir{{0, x.fd}}}
}

// open returns a descriptor of the directory of an entry. It is good until the next call.
func (d *dirs) open(i int32) (int, error) {
	d.down = d.down[:0]
	for c := i; ; c = d.x.index.Entries[c].Parent {
		for d.top().entry > c { // parents come before their children: it is not on the path
			unix.Close(d.top().fd)
			d.stack = d.stack[:len(d.stack)-1]
		}
		if d.top().entry == c {
			break
		}
		d.down = append(d.down, c)
	}
	for _, c := range slices.Backward(d.down) {
		fd, err := d.x.openDir(d.top().fd, c)
		if err != nil {
			return -1, fmt.Errorf("open directory %q: %w", d.x.index.Path(int(c)), err)
		}
		if len(d.stack) == maxOpenDirs {
			unix.Close(d.stack[1].fd)
			d.stack = slices.Delete(d.stack, 1, 2)
		}
		d.stack = append(d.stack, openDir{c, fd})
	}
	return d.top().fd, nil
}

func (d *dirs) top() openDir { return d.stack[len(d.stack)-1] }

// close closes all but the root, which is the extraction's.
func (d *dirs) close() {
	for _, o := range d.stack[1:] {
		unix.Close(o.fd)
	}
	d.stack = d.stack[:1]
}

// Flags for directories. A name that has become a symbolic link is not followed.
const openDirFlags = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

// openDir opens the directory of an entry in the open directory of its parent.
func (x *extraction) openDir(parent int, i int32) (int, error) {
	if to, ok := x.moved[i]; ok {
		return openBelow(x.fd, to)
	}
	return openAt(parent, x.index.Entries[i].Name, openDirFlags, 0)
}

// openAt is openat(2) of one path component.
func openAt(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// openBelow opens a directory by a path below another, in which no component may be a
// symbolic link.
func openBelow(dir int, path string) (int, error) {
	how := unix.OpenHow{Flags: openDirFlags, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(dir, path, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// where returns the path of an entry below the root, as it is on disk: not below the
// symbolic link that stands for a directory, but below the directory itself.
func (x *extraction) where(i int32) string {
	var names []string
	for ; i > 0; i = x.index.Entries[i].Parent {
		if to, ok := x.moved[i]; ok {
			names = append(names, to)
			break
		}
		names = append(names, x.index.Entries[i].Name)
	}
	if len(names) == 0 {
		return "."
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}
