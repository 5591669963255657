package kubo

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
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
