package tree_test

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab/tree"
)

// sample makes a small tree.
func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755))
	check(os.WriteFile(filepath.Join(dir, "a", "one"), []byte("one"), 0o644))
	check(os.Link(filepath.Join(dir, "a", "one"), filepath.Join(dir, "a", "two")))
	check(os.Symlink("one", filepath.Join(dir, "a", "sym")))
	check(unix.Mkfifo(filepath.Join(dir, "a", "fifo"), 0o600))
	check(unix.Lsetxattr(filepath.Join(dir, "a", "one"), "user.x", []byte("v\x00w"), 0))
	date := time.Unix(1e9, 5)
	for _, name := range []string{"a/one", "a/fifo", "a/b", "a", "."} {
		check(os.Chtimes(filepath.Join(dir, name), date, date))
	}
	spec := []unix.Timespec{{Sec: 1e9}, {Sec: 1e9}}
	check(unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "a", "sym"), spec, unix.AT_SYMLINK_NOFOLLOW))
	return dir
}

func read(t *testing.T, dir string) []tree.Entry {
	t.Helper()
	entries, err := tree.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestDiffSeesEveryChange(t *testing.T) {
	want := read(t, sample(t))
	if diff := tree.Diff(want, read(t, sample(t)), nil); len(diff) > 0 {
		t.Fatalf("equal trees differ: %q", diff)
	}
	for name, change := range map[string]struct {
		do   func(dir string) error
		says string
	}{
		"content":  {func(d string) error { return os.WriteFile(filepath.Join(d, "a/one"), []byte("eno"), 0o644) }, "content"},
		"size":     {func(d string) error { return os.Truncate(filepath.Join(d, "a/one"), 9) }, "size"},
		"mode":     {func(d string) error { return os.Chmod(filepath.Join(d, "a/b"), 0o700) }, "mode"},
		"mtime":    {func(d string) error { return os.Chtimes(filepath.Join(d, "a/b"), time.Time{}, time.Unix(1e9, 6)) }, "mtime"},
		"xattr":    {func(d string) error { return unix.Lsetxattr(filepath.Join(d, "a/one"), "user.x", []byte("v"), 0) }, "xattrs"},
		"link":     {func(d string) error { return os.Remove(filepath.Join(d, "a/two")) }, "missing"},
		"new file": {func(d string) error { return os.WriteFile(filepath.Join(d, "new"), nil, 0o600) }, "not expected"},
		"new link": {func(d string) error { return os.Link(filepath.Join(d, "a/one"), filepath.Join(d, "three")) }, "link count"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := sample(t)
			if err := change.do(dir); err != nil {
				t.Fatal(err)
			}
			diff := tree.Diff(want, read(t, dir), nil)
			if !strings.Contains(strings.Join(diff, "\n"), change.says) {
				t.Errorf("want %q in %q", change.says, diff)
			}
		})
	}
}

// TestReadLongPaths reads paths that are longer than the kernel takes in one call.
func TestReadLongPaths(t *testing.T) {
	root := t.TempDir()
	fd, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.Repeat("n", 200)
	for range 30 {
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	entries := read(t, root)
	if last := entries[len(entries)-1]; len(last.Path) < 6000 {
		t.Errorf("the longest path has %d bytes", len(last.Path))
	}
}

func TestTouched(t *testing.T) {
	layer := func(names ...string) *bytes.Buffer {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for _, n := range names {
			h := &tar.Header{Name: n, Mode: 0o755, Typeflag: tar.TypeReg}
			if strings.HasSuffix(n, "/") {
				h.Typeflag = tar.TypeDir
			}
			if err := tw.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
		}
		return &b
	}
	touched := tree.Touched{}
	for _, l := range []*bytes.Buffer{layer("./", "a/", "a/f", "b/", "b/c/d"), layer("a/.wh.f", "b/", "b/c/", "b/x")} {
		if err := touched.Layer(l); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]bool{".": true, "a": true, "b": false, "b/c": false} {
		if touched.Has(dir) != want {
			t.Errorf("%s: mtime not stated: %v, want %v", dir, !want, want)
		}
	}
}
