package hosttest

import (
	"fmt"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// Inside returns a path of what is mounted at dir as a container has it, through a mount of
// its own that nobody else sees. It lasts until leave is called or the test ends.
func Inside(t testing.TB, dir string) (path string, leave func()) {
	t.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	leave = sync.OnceFunc(func() { _ = unix.Close(fd) })
	t.Cleanup(leave)
	return fmt.Sprint("/proc/self/fd/", fd), leave
}
