//go:build linux

package opens

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
)

// TestGoneOverlay marks what was an overlay's place when the overlay has gone: the file system
// that the place is of now is not watched.
func TestGoneOverlay(t *testing.T) {
	hosttest.Root(t)
	g, err := newGroup(nil, false)
	if err != nil {
		t.Fatal(err)
	}
	defer g.events.Close()
	at := t.TempDir()
	gone := []overlay{{at: at, mount: 1 << 30}, {at: filepath.Join(at, "none"), mount: 1}}
	if err := g.mark(gone); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(g.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		t.Errorf("what was opened elsewhere is told (%d, %v)", n, err)
	}
}
