//go:build linux

package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// A Spare keeps the device of a relay's file system, in a process of its own, so that the file
// system does not end with the relay, and gives it to whoever will start another one.
//
// No daemon may keep it: a daemon may have a request of its own to the file system, and a process
// that is killed does not end before that is answered, nor are its files closed. With the relay
// dead, too, nobody would answer.
type Spare struct {
	dev *os.File
	ln  *net.UnixListener
}

// SpareTime is how long a file system may be without a relay before a Spare gives it up.
const SpareTime = 10 * time.Second

// NewSpare returns a Spare of a device for those that connect to ln. Both are its from now on.
func NewSpare(dev *os.File, ln *net.UnixListener) *Spare { return &Spare{dev, ln} }

// Keep returns when the device was given away, or SpareTime after ended was closed, which is to
// say that there is no relay any more. With the device goes the file system, unless it was given
// away. The end of ctx, which is to say that the file system has ended, ends it.
func (s *Spare) Keep(ctx context.Context, ended <-chan struct{}) error {
	given := make(chan struct{})
	go func() {
		defer close(given)
		s.give()
	}()
	select {
	case <-given:
	case <-ctx.Done():
	case <-ended:
		timer := time.NewTimer(SpareTime)
		defer timer.Stop()
		select {
		case <-given:
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	err := s.ln.Close()
	<-given
	return errors.Join(err, s.dev.Close())
}

// give gives the device to the first that asks.
func (s *Spare) give() {
	for {
		conn, err := s.ln.AcceptUnix()
		if err != nil {
			return // closed, or nobody can ask any more
		}
		sock, err := newStream(conn)
		if err != nil {
			continue
		}
		err = errors.Join(sock.give(s.dev), sock.Close())
		if err == nil {
			return
		}
	}
}

// FindSpare returns an error unless there is a Spare that listens at a socket. It asks for nothing.
func FindSpare(socket string) error {
	// The socket is looked up, and found to be of another kind, which is refused otherwise than
	// where nobody has it. A connection would be given the device.
	conn, err := net.Dial("unixgram", socket)
	switch {
	case errors.Is(err, unix.EPROTOTYPE):
		return nil
	case err == nil:
		return errors.Join(fmt.Errorf("%s is another's socket", socket), conn.Close())
	}
	return err
}

// AskSpare gets the device of the Spare that listens at a socket, for a relay that is to know
// this. The error is ErrLost, wrapped, if the file system cannot go on.
func AskSpare(socket string, state State) (*os.File, error) {
	conn, err := dialCreds(socket)
	if err != nil {
		return nil, fmt.Errorf("%w: and so is the one that kept its device: %w", ErrLost, err)
	}
	sock, err := newStream(conn)
	if err != nil {
		return nil, err
	}
	err = sock.within(greetTime)
	var dev *os.File
	if err == nil {
		_, dev, err = sock.readWith(make([]byte, 1), "/dev/fuse")
	}
	if err := errors.Join(err, sock.Close()); err != nil || dev == nil {
		return nil, fmt.Errorf("%w: its device was not given: %w", ErrLost, err)
	}
	switch err := connected(dev); {
	case err != nil:
		return nil, errors.Join(fmt.Errorf("%w: %w", ErrLost, err), dev.Close())
	case state.Init == nil:
		return nil, errors.Join(fmt.Errorf("%w: it ended before it had begun", ErrLost), dev.Close())
	case !canResend(state.Init):
		// Who waits for an answer would wait for ever.
		return nil, errors.Join(fmt.Errorf("%w: this kernel repeats no requests (Linux 6.9 does)", ErrLost), dev.Close())
	}
	return dev, nil
}

// Abandon ends a file system that has no relay, which nobody will have again. It is no error if
// there is none.
func Abandon(dir string) error {
	err := unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
