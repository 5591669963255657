package erofs_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/hosttest"
)

// mountTree writes a tree, lets fsck look at it, and mounts it.
func mountTree(t *testing.T, tree erofs.Inodes) string {
	t.Helper()
	hosttest.Root(t)
	dir := t.TempDir()
	path, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	var buf bytes.Buffer
	if err := erofs.Write(&buf, tree, erofs.Options{UUID: [16]byte{1, 2, 3}}); err != nil {
		t.Fatal(err)
	}
	if buf.Len()%4096 != 0 {
		t.Fatalf("image of %d bytes is not whole blocks", buf.Len())
	}
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	fsck(t, path)
	if err := unix.Mount(path, mnt, "erofs", unix.MS_RDONLY, ""); err != nil {
		t.Fatalf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return mnt
}

// fsck runs fsck.erofs where it is installed. It is an opinion more; the kernel's counts.
func fsck(t *testing.T, path string) {
	t.Helper()
	tool, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Logf("fsck.erofs is not installed: only the kernel checks the image")
		return
	}
	if out, err := exec.Command(tool, path).CombinedOutput(); err != nil {
		t.Errorf("fsck.erofs: %v\n%s", err, out)
	}
}
