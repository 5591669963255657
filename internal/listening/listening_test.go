//go:build linux

package listening_test

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/hinshun/ipcs/internal/listening"
)

// TestOn finds the port of a socket that listens as long as it does, also of IPv6, as that of
// the process that has it and of no other.
func TestOn(t *testing.T) {
	other := exec.Command("sleep", "infinity")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = other.Process.Kill()
		_ = other.Wait() // says that it was killed
	})
	on := func(port int, pids ...int) bool {
		t.Helper()
		found, err := listening.On(uint16(port), pids...)
		if err != nil {
			t.Error(err)
		}
		return found
	}
	self, gone := os.Getpid(), 1<<22+1 // above the largest that there is
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		from := conn.LocalAddr().(*net.TCPAddr).Port
		if !on(port, gone, other.Process.Pid, self) {
			t.Errorf("%s: it is not found that port %d listens", address, port)
		}
		if on(port, other.Process.Pid) {
			t.Errorf("%s: another process is said to listen", address)
		}
		if on(from, self) {
			t.Errorf("%s: a connection is said to listen", address)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if on(port, self) {
			t.Errorf("%s: port %d still listens", address, port)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
