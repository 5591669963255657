package lab_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// transfer sends size bytes over a new connection from one machine to another, and
// returns how long it took until the last one was there.
func transfer(t testing.TB, from, to *lab.Machine, size int64) time.Duration {
	t.Helper()
	l, err := to.Listen(t.Context(), "tcp", to.Addr()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var group errgroup.Group
	var took time.Duration
	start := time.Now()
	group.Go(func() error {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		n, err := io.Copy(io.Discard, conn)
		took = time.Since(start)
		if n != size {
			return errors.Join(err, fmt.Errorf("%d of %d bytes came", n, size))
		}
		return err
	})
	conn, err := from.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(conn, io.LimitReader(zeros{}, size))
	if err := errors.Join(err, conn.Close(), group.Wait()); err != nil {
		t.Fatal(err)
	}
	return took
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// add adds a machine with options to a lab.
func add(t testing.TB, l *lab.Lab, name string, opts lab.MachineOptions) *lab.Machine {
	t.Helper()
	m, err := l.Add(t.Context(), name, opts)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestRate finds that each direction is limited, by a machine's own rate and by one
// that is set later. That a link is not slower than its rate is for BenchmarkLink to
// tell: it depends on what else the host does.
func TestRate(t *testing.T) {
	l := labtest.Open(t, "rate", 1000)
	fast, slow := labtest.Machine(t, l, "fast"), add(t, l, "slow", lab.MachineOptions{Rate: 50})
	limited := func(when string) {
		t.Helper()
		const size = 2 << 20 // of which the burst is little
		least := size * 9 / 10 * 8 / 50 * time.Microsecond
		for _, way := range [][2]*lab.Machine{{fast, slow}, {slow, fast}} {
			if took := transfer(t, way[0], way[1], size); took < least {
				t.Errorf("%s: from %s to %s in %s, less than %s", when, way[0].Name, way[1].Name, took, least)
			}
		}
	}
	limited("a rate of its own")
	for m, rate := range map[*lab.Machine]int{slow: 1000, fast: 50} {
		if err := m.SetRate(t.Context(), rate); err != nil {
			t.Fatal(err)
		}
	}
	limited("rates changed")
	if err := fast.SetRate(t.Context(), 0); err == nil {
		t.Error("a rate of 0")
	}
}

func TestNoRates(t *testing.T) {
	l := labtest.Open(t, "norate", 0)
	if _, err := l.Add(t.Context(), "a", lab.MachineOptions{Rate: 100}); err == nil {
		t.Error("a link without a network")
	}
	if err := labtest.Machine(t, l, "b").SetRate(t.Context(), 100); err == nil {
		t.Error("the rate of no link")
	}
}

// TestListenIsInside finds that a listener is the machine's, not the host's.
func TestListenIsInside(t *testing.T) {
	l := labtest.Open(t, "listen", 100)
	m := labtest.Machine(t, l, "node")
	listener, err := m.Listen(t.Context(), "tcp", m.Addr()+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if l, err := net.Listen("tcp", m.Addr()+":80"); err == nil || !strings.Contains(err.Error(), "cannot assign") {
		t.Errorf("the host has the machine's address: %v, %v", l, err)
	}
}

// TestCongestion finds that connections have the lab's control of congestion at both
// ends, between machines and within one.
func TestCongestion(t *testing.T) {
	l := labtest.Open(t, "congest", 1000)
	a, b := labtest.Machine(t, l, "a"), labtest.Machine(t, l, "b")
	for _, c := range []struct {
		from, to *lab.Machine
		addr     string
	}{{a, b, b.Addr()}, {a, a, a.Addr()}, {a, a, "127.0.0.1"}} {
		listener, err := c.to.Listen(t.Context(), "tcp", c.addr+":0")
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.from.Dial(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		in, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, conn := range []net.Conn{out, in} {
			if got := congestion(t, conn); got != lab.Congestion {
				t.Errorf("from %s to %s: %s, want %s", c.from.Name, c.addr, got, lab.Congestion)
			}
		}
		if err := errors.Join(in.Close(), out.Close(), listener.Close()); err != nil {
			t.Error(err)
		}
	}
}

// congestion asks the kernel how a connection controls congestion.
func congestion(t *testing.T, conn net.Conn) (name string) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		name, failed = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return name
}

// BenchmarkLink reports what a link carries of payload, and the round trip beside that.
func BenchmarkLink(b *testing.B) {
	for _, rate := range []int{50, 200, 1000, 10000} {
		b.Run(fmt.Sprint(rate), func(b *testing.B) {
			l, err := lab.Open(b.Context(), labtest.Options(b, "link", rate))
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := l.Close(); err != nil {
					b.Error(err)
				}
			}()
			from, to := labtest.Machine(b, l, "from"), labtest.Machine(b, l, "to")
			size := int64(rate) * 1e6 / 8 // a second's
			var took time.Duration
			for b.Loop() {
				took += transfer(b, from, to, size)
			}
			b.ReportMetric(float64(size)*float64(b.N)*8/took.Seconds()/1e6, "Mbit/s")
		})
	}
}
