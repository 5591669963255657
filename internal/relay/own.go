//go:build linux

package relay

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// failOwn fails what a daemon that is gone has asked for itself, as when it compares trees: a
// process that is killed does not end before what it has asked for is answered, and before it
// has, no other is started. It is called with r.mu.
func (r *Relay) failOwn(pid int) {
	if pid == 0 {
		return
	}
	for unique, req := range r.waiting {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%d", pid, in(req.message).caller())); err == nil {
			delete(r.waiting, unique)
			r.write(errorReply(unique, syscall.EIO))
		}
	}
}

// peer returns the number of the process at the other end, 0 if it is not known.
func (s *stream) peer() int {
	cred, err := unix.GetsockoptUcred(int(s.file.Fd()), unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return 0
	}
	return int(cred.Pid)
}
