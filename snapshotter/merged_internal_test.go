//go:build linux

package snapshotter

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
)

// TestMountByPage mounts more directories than a page has room for the names of, as on kernels that
// take all in one option, and refuses what it cannot name either way.
func TestMountByPage(t *testing.T) {
	hosttest.Root(t)
	dir, at := t.TempDir(), t.TempDir()
	var dirs []string
	for i := range 400 {
		d := filepath.Join(dir, strings.Repeat("x", 100), fmt.Sprint(i))
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprint("file", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, d)
	}
	if err := mountByPage(at, &lower{dirs: dirs}); !errors.Is(err, unix.E2BIG) {
		t.Errorf("error of 400 directories: %v", err)
	}
	for _, n := range []int{2, 130} {
		if err := mountByPage(at, &lower{dirs: dirs[:n]}); err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(at)
		if err != nil || len(entries) != n {
			t.Errorf("%d of %d files are there: %v", len(entries), n, err)
		}
		if err := unmount(at); err != nil {
			t.Fatal(err)
		}
		if n := openBelow(t, dir); n > 0 {
			t.Errorf("%d directories are left open", n)
		}
	}
	long := []string{filepath.Join(dir, strings.Repeat("y", 2000)), filepath.Join(dir, strings.Repeat("z", 2000))}
	if err := mountByPage(at, &lower{dirs: long}); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("error of directories that cannot be: %v", err)
	}
}

// openBelow counts what this process has open below dir.
func openBelow(t *testing.T, dir string) (n int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}
