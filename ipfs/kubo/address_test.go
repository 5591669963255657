package kubo

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

func TestPermissionDenied(t *testing.T) {
	c, err := New("/run/ipcs/api.sock")
	if err != nil {
		t.Fatal(err)
	}
	denied := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
	err = c.failed(t.Context(), "list pins", denied)
	if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "run as root") || !strings.Contains(err.Error(), "/run/ipcs/api.sock") {
		t.Errorf("a socket we may not use: %v", err)
	}
}

// TestPasswordIsNotShown looks for the password of an address in errors.
func TestPasswordIsNotShown(t *testing.T) {
	for _, addr := range []string{"http://user:s3cret@127.0.0.1:1", "http://user:s3cret@[::1:1", "http://user:s3cret@"} {
		c, err := New(addr)
		if err == nil {
			_, err = c.Has(t.Context(), ipfs.RawCid(strings.Repeat("x", 32)))
		}
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}
