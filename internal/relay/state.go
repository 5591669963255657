//go:build linux

package relay

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// ErrLost says that a file system cannot go on without the relay that it had.
var ErrLost = errors.New("the process that held the FUSE mount is gone")

// A State is what a relay must know of a file system that the kernel knows already.
type State struct {
	Init  []byte // the kernel's INIT request; nil before it came
	Nodes []Node // at least those that the kernel remembers
}

// WriteTo implements io.WriterTo: for another process.
func (s State) WriteTo(w io.Writer) (int64, error) {
	n, err := w.Write(append(greeting(s.Nodes), s.Init...))
	return int64(n), err
}

// ReadState reads what WriteTo wrote.
func ReadState(r io.Reader) (s State, err error) {
	if s.Nodes, err = readGreeting(r); err != nil {
		return s, fmt.Errorf("state of a relay: %w", err)
	}
	s.Init, err = readMessage(r, make([]byte, smallMessage), requestHeader)
	if errors.Is(err, io.EOF) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("state of a relay: %w", err)
	}
	return s, nil
}

// canResend says whether the kernel that sent this INIT repeats requests when it is told to.
func canResend(init []byte) bool {
	// struct fuse_init_in: version, read-ahead and flags come before the second flags.
	const flags2 = requestHeader + 16
	return len(init) >= flags2+4 && order.Uint32(init[flags2:])&hasResend != 0
}

// resume has the kernel ask again what it has asked a relay before.
func (r *Relay) resume() error {
	r.mu.Lock()
	started := r.started
	r.mu.Unlock()
	if !started {
		return nil
	}
	m := errorReply(0, 0)
	order.PutUint32(m[4:], notifyResend)
	if _, err := r.dev.Write(m); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("have the kernel repeat what was not answered: %w", err)
	}
	r.log.Info("took over the file system of a relay that is gone", "nodes", len(r.nodes))
	return nil
}

// connected returns an error unless the file system of a device is still there.
func connected(dev *os.File) error {
	fds := []unix.PollFd{{Fd: int32(dev.Fd()), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, 0)
	for errors.Is(err, unix.EINTR) {
		_, err = unix.Poll(fds, 0)
	}
	if err == nil && fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0 {
		err = errors.New("it was unmounted")
	}
	return err
}
