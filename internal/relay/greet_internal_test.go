//go:build linux

package relay

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSilent: what listens and says nothing, as a process that is stopped, is not waited for for ever.
func TestSilent(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := dial(socket, 50*time.Millisecond); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("a silent relay: %v", err)
	}
}
