package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// The daemon's helpers are this program too: processes of their own that containers depend
// on, which stay when the daemon goes. The daemon starts one by a process that ends at once,
// so that nobody has to wait for it.

// inherited is the file that a helper is given first: the socket that it listens on.
const inherited = 3

// helper is a process that belongs to nobody.
func helper(files []*os.File, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// listenerFile is what a helper inherits of a listener, whose socket is the helper's then.
func listenerFile(ln net.Listener) (*os.File, error) {
	unixListener, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, errors.New("not a unix socket")
	}
	unixListener.SetUnlinkOnClose(false)
	return unixListener.File()
}

// inheritedListener is what a helper listens on.
func inheritedListener() (*net.UnixListener, error) {
	file := os.NewFile(inherited, "listener")
	ln, err := net.FileListener(file)
	if err := errors.Join(err, file.Close()); err != nil { // the listener has a copy
		return nil, fmt.Errorf("%w: the daemon runs this command, with a socket", err)
	}
	unixListener, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("%w: file %d is no unix socket", errUsage, inherited)
	}
	unixListener.SetUnlinkOnClose(true)
	return unixListener, nil
}

// outlive keeps the kernel from ending a helper when memory is short: containers depend on
// it, and its memory is small. In a user namespace it may not ask for that.
func outlive(log *slog.Logger) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil {
		log.Info("this process may be killed when memory is short", "err", err)
	}
}
