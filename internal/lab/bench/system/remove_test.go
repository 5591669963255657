package system

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
)

// TestRemove removes what images may hold, and nothing that a link leads to.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "folder")
	for i := range 20 {
		sub := filepath.Join(folder, fmt.Sprint(i), "deep", "er")
		if err := os.MkdirAll(sub, 0o700); err != nil {
			t.Fatal(err)
		}
		for j := range 20 {
			if err := os.WriteFile(filepath.Join(sub, fmt.Sprint(j)), nil, 0o400); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink(dir, filepath.Join(sub, "up")); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(folder); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
	if err := remove(folder); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// TestRemoveMounted finds that what is mounted is not emptied.
func TestRemoveMounted(t *testing.T) {
	hosttest.Root(t)
	mounted, folder := t.TempDir(), t.TempDir()
	file, point := filepath.Join(mounted, "file"), filepath.Join(folder, "point")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Mkdir(point, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(mounted, point, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	err := remove(folder)
	if err := unix.Unmount(point, 0); err != nil {
		t.Fatal(err)
	}
	if err == nil {
		t.Error("a folder with a mount was removed")
	}
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("a file on the mount: %v", err)
	}
}
