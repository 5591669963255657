package hosttest

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Mount mounts until the test ends.
func Mount(t testing.TB, source, dir, typ, options string) {
	t.Helper()
	if err := unix.Mount(source, dir, typ, 0, options); err != nil {
		t.Fatalf("mount %s at %s with %q: %v: this test needs root", typ, dir, options, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// Disk returns a folder that is a file system of its own, in memory and of the size.
func Disk(t testing.TB, size string) string {
	t.Helper()
	dir := t.TempDir()
	Mount(t, "tmpfs", dir, "tmpfs", "size="+size)
	return dir
}
