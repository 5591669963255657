package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// HTTPClient returns a client whose connections start on the machine.
func (m *Machine) HTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: m.Dial}}
}

// Dial connects from the machine. The address must be an IP address and port.
func (m *Machine) Dial(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = m.inside(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen listens on the machine. The address must be an IP address and port.
func (m *Machine) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	var config net.ListenConfig
	// Go asks for multipath TCP, which is one more thing that could be measured.
	config.SetMultipathTCP(false)
	err = m.inside(func() (err error) {
		l, err = config.Listen(ctx, network, addr)
		return err
	})
	return l, err
}

// inside calls f, which makes a socket, in the machine's namespace.
func (m *Machine) inside(f func() error) error {
	if m.holder == nil {
		return f()
	}
	target, err := os.Open(m.holder.netns())
	if err != nil {
		return err
	}
	defer target.Close()
	// A socket belongs to the namespace of the thread that makes it. If the thread
	// cannot go back it stays locked, and ends with this goroutine.
	runtime.LockOSThread()
	home, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the namespace of %s: %w", m.Name, err)
	}
	madeErr := f()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("leave the namespace of %s: %w", m.Name, err)
	}
	runtime.UnlockOSThread()
	return madeErr
}
