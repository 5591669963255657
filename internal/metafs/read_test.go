//go:build linux

package metafs_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/erofs/erofstest"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/metafs/metafstest"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
)

// redirected is a file whose data are elsewhere.
func redirected(namespace, path string, size int) erofs.Inode {
	return erofs.Inode{Mode: unix.S_IFREG | 0o644, Size: uint64(size), Xattrs: []erofs.Xattr{
		{Name: namespace + ".overlay.metacopy"}, {Name: namespace + ".overlay.redirect", Value: path}, {Name: "user.own", Value: "shown"}}}
}

// TestData reads files from folders: from the first that has one, from another when it is
// gone there, nothing that is not as long as it should be, and nothing outside.
func TestData(t *testing.T) {
	hosttest.Root(t)
	client, _ := metafstest.Start(t)
	dir := t.TempDir()
	first, second, mnt := filepath.Join(dir, "first"), filepath.Join(dir, "second"), filepath.Join(dir, "mnt")
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for path, data := range map[string][]byte{
		first + "/x/a": []byte("first"), second + "/x/a": []byte("other"), second + "/x/b": long, second + "/x/short": []byte("x"), dir + "/outside": []byte("outside"),
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	b := erofstest.NewBuilder()
	b.Add(0, "a", redirected("trusted", "/x/a", 5))
	b.Add(0, "b", redirected("user", "/x/b", len(long)))
	b.Add(0, "short", redirected("user", "/x/short", 5))
	b.Add(0, "absent", redirected("user", "/x/c", 5))
	b.Add(0, "outside", redirected("user", "/../outside", 7))
	b.Add(0, "nowhere", erofstest.Reg(5))
	b.Add(0, "empty", erofstest.Reg(0))
	if err := client.Mount(written(t, b.Tree()), mnt, first, second); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	}()
	relaytest.NoPoll(t, mnt)
	for name, want := range map[string]string{"a": "first", "b": string(long), "empty": ""} {
		if got, err := os.ReadFile(filepath.Join(mnt, name)); err != nil || string(got) != want {
			t.Errorf("%s: read %d bytes, %v, want %d", name, len(got), err, len(want))
		}
	}
	for _, name := range []string{"short", "absent", "outside", "nowhere"} {
		if got, err := os.ReadFile(filepath.Join(mnt, name)); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
	}
	names := make([]byte, 1000)
	n, err := unix.Listxattr(filepath.Join(mnt, "a"), names)
	if err != nil || string(names[:n]) != "user.own\x00" {
		t.Errorf("extended attributes are %q, %v", names[:max(n, 0)], err)
	}
	if _, err := unix.Getxattr(filepath.Join(mnt, "a"), "trusted.overlay.metacopy", names); !errors.Is(err, unix.ENODATA) {
		t.Errorf("an attribute for overlays: %v", err)
	}
	if err := os.Remove(first + "/x/a"); err != nil {
		t.Fatal(err)
	}
	dropPages(t, filepath.Join(mnt, "a"))
	if got, err := os.ReadFile(filepath.Join(mnt, "a")); err != nil || string(got) != "other" {
		t.Errorf("read %q, %v of the second folder", got, err)
	}
}

// dropPages makes the kernel forget what it has read of a file.
func dropPages(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED), unix.Close(fd)); err != nil {
		t.Fatal(err)
	}
}
