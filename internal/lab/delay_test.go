package lab_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

const rtt = 40 * time.Millisecond

// serve accepts one connection on the machine, and calls handle with it. It returns the
// address of a delay before it.
func serve(t *testing.T, m *lab.Machine, handle func(*net.TCPConn) error) *lab.Delay {
	t.Helper()
	l, err := m.Listen(t.Context(), "tcp", m.Addr()+":0")
	if err != nil {
		t.Fatal(err)
	}
	var group errgroup.Group
	group.Go(func() error {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil // the test ended before it came so far
		}
		if err != nil {
			return err
		}
		defer conn.Close()
		return handle(conn.(*net.TCPConn))
	})
	t.Cleanup(func() {
		if err := errors.Join(l.Close(), group.Wait()); err != nil {
			t.Errorf("server: %v", err)
		}
	})
	d, err := m.StartDelay(t.Context(), l.Addr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func dial(t *testing.T, m *lab.Machine, d *lab.Delay) *net.TCPConn {
	t.Helper()
	conn, err := m.Dial(t.Context(), "tcp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn.(*net.TCPConn)
}

// echo sends back what comes, until its end.
func echo(conn *net.TCPConn) error {
	_, err := io.Copy(conn, conn)
	return errors.Join(err, conn.CloseWrite())
}

func TestDelayTakesItsTime(t *testing.T) {
	l := labtest.Open(t, "delay", 0)
	m := labtest.Machine(t, l, "node")
	d := serve(t, m, echo)
	start := time.Now()
	conn := dial(t, m, d)
	for i, least := range []time.Duration{2 * rtt, rtt} { // the first has the handshake before it
		if _, err := conn.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
		var answer [1]byte
		if _, err := io.ReadFull(conn, answer[:]); err != nil || answer[0] != byte(i) {
			t.Fatalf("answer %v, %v", answer, err)
		}
		if took := time.Since(start); took < least {
			t.Errorf("request %d was answered after %s, less than %s", i, took, least)
		}
		start = time.Now()
	}
}

// TestDelayCarriesAllBytes sends more than the queue holds both ways at once.
func TestDelayCarriesAllBytes(t *testing.T) {
	const size = 100 << 20
	l := labtest.Open(t, "delay", 0)
	m := labtest.Machine(t, l, "node")
	d := serve(t, m, echo)
	conn := dial(t, m, d)
	stream := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{7}), size) }
	var group errgroup.Group
	group.Go(func() error {
		_, err := io.Copy(conn, stream())
		return errors.Join(err, conn.CloseWrite())
	})
	if err := equal(conn, stream()); err != nil {
		t.Error(err)
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// equal compares two streams to their ends.
func equal(a, b io.Reader) error {
	x, y := make([]byte, 100_003), make([]byte, 100_003)
	for at := 0; ; {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		if !bytes.Equal(x[:n], y[:m]) {
			return fmt.Errorf("streams differ after byte %d (%d and %d bytes there, %v, %v)", at, n, m, errA, errB)
		}
		if errA != nil || errB != nil {
			if fmt.Sprint(errA) != fmt.Sprint(errB) || errors.Is(errA, net.ErrClosed) {
				return fmt.Errorf("streams end with %v and %v", errA, errB)
			}
			return nil
		}
		at += n
	}
}

func TestDelayPassesAnEndOfOneDirection(t *testing.T) {
	l := labtest.Open(t, "delay", 0)
	m := labtest.Machine(t, l, "node")
	d := serve(t, m, func(conn *net.TCPConn) error {
		asked, err := io.ReadAll(conn) // to the end
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(conn, "you sent %q", asked)
		return err
	})
	conn := dial(t, m, d)
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != `you sent "hello"` {
		t.Errorf("answer %q, %v", answer, err)
	}
}

func TestDelayPassesErrors(t *testing.T) {
	l := labtest.Open(t, "delay", 0)
	m := labtest.Machine(t, l, "node")
	d := serve(t, m, func(conn *net.TCPConn) error { return conn.SetLinger(0) }) // Close is a reset then
	for _, c := range []struct {
		name string
		d    *lab.Delay
	}{{"server that breaks off", d}, {"no server", nobody(t, m)}} {
		conn := dial(t, m, c.d)
		if _, err := io.ReadAll(conn); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v, want a reset", c.name, err)
		}
	}
	if _, err := m.StartDelay(t.Context(), "example:80", rtt); err == nil {
		t.Error("a name was taken for an address")
	}
}

// nobody is a delay before an address at which nothing listens.
func nobody(t *testing.T, m *lab.Machine) *lab.Delay {
	t.Helper()
	l, err := m.Listen(t.Context(), "tcp", m.Addr()+":0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := m.StartDelay(t.Context(), l.Addr().String(), rtt)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDelayCloses closes a delay with a connection under way and one in its handshake.
func TestDelayCloses(t *testing.T) {
	l := labtest.Open(t, "delay", 0)
	m := labtest.Machine(t, l, "node")
	accepted := make(chan struct{})
	d := serve(t, m, func(conn *net.TCPConn) error {
		close(accepted)
		_, err := io.Copy(io.Discard, conn)
		return err
	})
	conns := []*net.TCPConn{dial(t, m, d)}
	<-accepted
	conns = append(conns, dial(t, m, d))
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, conn := range conns {
		if n, err := io.Copy(io.Discard, conn); n != 0 { // an end or an error, at once
			t.Errorf("after Close: %d bytes, %v", n, err)
		}
	}
	if _, err := m.Dial(t.Context(), "tcp", d.Addr); err == nil {
		t.Error("it still listens")
	}
}

// TestDelayOnALink goes from one machine to another. The lab closes it.
func TestDelayOnALink(t *testing.T) {
	l := labtest.Open(t, "dlink", 1000)
	server, node := labtest.Machine(t, l, "server"), labtest.Machine(t, l, "node")
	registry, err := server.StartRegistry(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d, err := node.StartDelay(t.Context(), registry.Addr, rtt)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	resp, err := node.HTTPClient().Get("http://" + d.Addr + "/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if took := time.Since(start); took < 2*rtt {
		t.Errorf("answered after %s", took)
	}
}
