//go:build linux

package relay

import (
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A stream is one end of the socket between relay and daemon. It blocks in the kernel: to
// be woken by the runtime's poller costs a third of what a message costs in all.
type stream struct {
	file    *os.File
	closing sync.Once
	err     error
}

// newStream takes over a connection.
func newStream(sock *net.UnixConn) (*stream, error) {
	file, err := sock.File()
	if err := errors.Join(err, sock.Close()); err != nil {
		return nil, err
	}
	file.Fd() // makes it block
	return &stream{file: file}, nil
}

func (s *stream) Read(b []byte) (int, error)  { return s.file.Read(b) }
func (s *stream) Write(b []byte) (int, error) { return s.file.Write(b) }

// Close ends the connection, and reads that wait on it.
func (s *stream) Close() error {
	s.closing.Do(func() {
		err := unix.Shutdown(int(s.file.Fd()), unix.SHUT_RDWR)
		if errors.Is(err, unix.ENOTCONN) {
			err = nil // the other end is gone
		}
		s.err = errors.Join(err, s.file.Close())
	})
	return s.err
}
