package lazyfs_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/relay"
)

var errDied = errors.New("died while it began")

// mortalRelay is a relay of no file system, until kill is called. The kernel's part is a pipe.
func mortalRelay(t *testing.T) (client *relay.Client, kill func()) {
	t.Helper()
	dev, kernel, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	run, err := os.MkdirTemp("", "relay") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(run, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = relay.New(run, dev, ln, relay.Options{}).Serve(t.Context()) // the end of the pipe is an error
	}()
	kill = func() {
		_ = kernel.Close() // it may have been killed
		<-served
	}
	t.Cleanup(func() {
		kill()
		if err := os.RemoveAll(run); err != nil {
			t.Error(err)
		}
	})
	if client, err = relay.Dial(socket); err != nil {
		t.Fatal(err)
	}
	return client, kill
}

// TestRestart has relays die that are to take the place of another: the next one is tried, as long
// as the file system is not lost.
func TestRestart(t *testing.T) {
	first, kill := mortalRelay(t)
	second, killSecond := mortalRelay(t)
	lost := fmt.Errorf("%w: nobody kept it", relay.ErrLost)
	tries := make(chan error, 5)
	for _, err := range []error{errDied, errDied, nil, errDied, lost} {
		tries <- err
	}
	began := make(chan struct{})
	s := lazyfs.Serve(first, &known{}, nil, lazyfs.Options{Restart: func(relay.State) (*relay.Client, error) {
		err := <-tries
		if err != nil {
			return nil, err
		}
		close(began)
		return second, nil
	}})
	kill()
	<-began
	for s.Stats().Restarts == 0 { // the test hangs if it is not counted
	}
	killSecond()
	<-s.Done()
	if n := len(tries); n != 0 {
		t.Errorf("gave up %d tries too early", n)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestCloseWhileRestarting closes a Server whose relays all die. What is asked of it meanwhile is
// answered.
func TestCloseWhileRestarting(t *testing.T) {
	client, kill := mortalRelay(t)
	trying, die := make(chan struct{}, 1000), make(chan struct{})
	s := lazyfs.Serve(client, &known{}, nil, lazyfs.Options{Restart: func(relay.State) (*relay.Client, error) {
		trying <- struct{}{}
		<-die
		return nil, errDied
	}})
	kill()
	<-trying
	if n := s.Stats().Restarts; n != 0 {
		t.Errorf("%d relays have begun", n)
	}
	close(die)
	<-trying
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	<-s.Done()
}
