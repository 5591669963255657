//go:build linux

package relay

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

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

// greetTime is how long a process that listens may take to say its first words. Only one that
// is stopped, or a machine that hardly runs, takes as long.
const greetTime = 30 * time.Second

// within limits how long each read may take, 0 being for ever. A read that takes longer fails
// with EAGAIN.
func (s *stream) within(limit time.Duration) error {
	t := unix.NsecToTimeval(limit.Nanoseconds())
	return unix.SetsockoptTimeval(int(s.file.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &t)
}

// give gives the other end a file, with a byte.
func (s *stream) give(file *os.File) error {
	for {
		_, err := unix.SendmsgN(int(s.file.Fd()), []byte{0}, unix.UnixRights(int(file.Fd())), nil, unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// readWith reads the first byte that the other end has sent, and returns the number of the
// process that did, and the file that came with it, nil if there was none. The socket is one of
// dialCreds.
func (s *stream) readWith(b []byte, name string) (pid int, file *os.File, err error) {
	oob := make([]byte, unix.CmsgSpace(4)+unix.CmsgSpace(unix.SizeofUcred))
	var n, oobn int
	for {
		n, oobn, _, _, err = unix.Recvmsg(int(s.file.Fd()), b[:1], oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, nil, err
	}
	if n == 0 {
		return 0, nil, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return 0, nil, err
	}
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) > 0 {
			file = os.NewFile(uintptr(fds[0]), name)
		}
	}
	return pid, file, nil
}

// dialCreds connects to a socket, whose other end is to say which process it is.
func dialCreds(socket string) (*net.UnixConn, error) {
	d := net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		return errors.Join(err, failed)
	}}
	conn, err := d.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil // as the network says
}

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
