//go:build linux

package snapshotter_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/continuity/sysx"
	"golang.org/x/sys/unix"
)

// compareTrees checks that two mounts show the same, but for what no container can rely
// on: sizes and link counts of directories, inode numbers, and the time of a directory
// that the last layer to touch it has no entry for, which is when it was extracted.
func compareTrees(t testing.TB, got, want string) {
	t.Helper()
	g, w := describe(t, got), describe(t, want)
	for path, line := range w {
		other := g[path]
		if line.dirTime == 0 || line.dirTime > extracted {
			other.dirTime = line.dirTime
		}
		if other != line {
			t.Errorf("%q is\n     %v\nwant %v", path, other, line)
		}
	}
	for path, line := range g {
		if _, ok := w[path]; !ok {
			t.Errorf("%q is %v, want nothing", path, line)
		}
	}
	if len(w) < 2 {
		t.Errorf("only %d paths compared", len(w))
	}
}

// extracted is later than any time in a tar of these tests, and earlier than now.
const extracted = 1_577_836_800

// line is what a path is.
type line struct {
	text    string
	dirTime int64
}

// describe returns a line for each path.
func describe(t testing.TB, root string) map[string]line {
	t.Helper()
	lines := make(map[string]line)
	links := make(map[[2]uint64]string)
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		line, err := describePath(path, links)
		if errors.Is(err, unix.ENOENT) {
			return nil // a whiteout that hides nothing: overlayfs lists some
		}
		if path == root {
			line.dirTime = 0
		}
		lines[strings.TrimPrefix(path, root)] = line
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func describePath(path string, links map[[2]uint64]string) (l line, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return l, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%o %d:%d", st.Mode, st.Uid, st.Gid)
	typ := st.Mode & unix.S_IFMT
	if typ == unix.S_IFDIR {
		l.dirTime = st.Mtim.Sec
	} else {
		fmt.Fprintf(&b, " %d.%d", st.Mtim.Sec, st.Mtim.Nsec)
		inode := [2]uint64{st.Dev, st.Ino}
		if _, ok := links[inode]; !ok {
			links[inode] = filepath.Base(path)
		}
		fmt.Fprintf(&b, " n%d %s", st.Nlink, links[inode])
	}
	switch typ {
	case unix.S_IFREG:
		body, err := os.ReadFile(path)
		if err != nil {
			return l, err
		}
		if len(body) > 40 {
			body = fmt.Appendf(nil, "%d bytes, %.20s...", len(body), body)
		}
		fmt.Fprintf(&b, " %d %q", st.Size, body)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return l, err
		}
		fmt.Fprintf(&b, " -> %s", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		fmt.Fprintf(&b, " %x", st.Rdev)
	}
	l.text = b.String() + describeXattrs(path)
	return l, nil
}

func describeXattrs(path string) string {
	names, err := sysx.LListxattr(path)
	if err != nil {
		return err.Error()
	}
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		value, err := sysx.LGetxattr(path, name)
		fmt.Fprintf(&b, " %s=%q(%v)", name, value, err)
	}
	return b.String()
}
