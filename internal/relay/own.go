//go:build linux

package relay

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchEvery is how often the relay looks whether a daemon that owes answers is dying.
const watchEvery = time.Second

var errDying = errors.New("it was killed, and cannot end")

// watch disconnects a daemon that was killed and waits for an answer to what it has asked for
// itself: until it gets one, its files stay open, so that the connection does not end.
func (r *Relay) watch(done <-chan struct{}) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-done:
			return
		}
		r.mu.Lock()
		c, waiting := r.conn, len(r.waiting)
		r.mu.Unlock()
		if c != nil && waiting > 0 && isDying(c.pid) {
			r.disconnect(c, errDying)
		}
	}
}

// isDying says whether the first thread of a process has ended.
func isDying(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false // it is not known, or all of it has ended
	}
	// The name, in parentheses, may hold anything; the state follows.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	return len(fields) > 0 && fields[0][0] == 'Z'
}

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
