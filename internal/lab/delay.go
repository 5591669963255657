package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// A Delay is a TCP proxy that stands for a longer way to a target. What it adds is
// what a way of that round-trip time has:
//
//   - each direction takes half of it;
//   - a connection takes all of it before the first byte can be sent. The kernel
//     accepts at once, so that the connecting side notices by its first answer.
//
// Nothing else changes: bytes keep their order, an end of one direction passes with
// the same delay, a connection that breaks on one side is reset on the other, and the
// rate is that of the links. It does not imitate what TCP makes of a long way: its
// window grows with the round trips of the links, not with these.
//
// Each direction of a connection is a reader, which notes when something came, a
// queue, and a writer, which waits until it is due. Close ends and awaits them all.
type Delay struct {
	Addr string // host:port on the machine

	rtt      time.Duration
	dial     func(context.Context) (net.Conn, error)
	listener net.Listener
	cancel   context.CancelFunc
	carriers sync.WaitGroup // the goroutines that accept and carry
	buffers  sync.Pool      // of *[]byte, each chunkSize long
	failed   error          // of accepting; valid after carriers
}

// StartDelay starts a Delay on the machine. The target, an IP address and port, is
// connected to from there.
func (m *Machine) StartDelay(ctx context.Context, target string, rtt time.Duration) (*Delay, error) {
	if _, err := netip.ParseAddrPort(target); err != nil {
		return nil, fmt.Errorf("delay the way from %s to %q: want IP:PORT: %w", m.Name, target, err)
	}
	listener, err := m.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("delay the way from %s to %s: %w", m.Name, target, err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // ended by Close
	d := &Delay{
		Addr: listener.Addr().String(), rtt: rtt, listener: listener, cancel: cancel,
		dial: func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, "tcp", target) },
	}
	d.buffers.New = func() any { b := make([]byte, chunkSize); return &b }
	d.carriers.Go(func() { d.failed = d.accept(ctx) })
	m.lab.delays = append(m.lab.delays, d)
	return d, nil
}

// Close ends all connections.
func (d *Delay) Close() error {
	d.cancel()
	err := d.listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil // it was closed before
	}
	d.carriers.Wait()
	return errors.Join(err, d.failed)
}

// accept accepts connections until the listener is closed.
func (d *Delay) accept(ctx context.Context) error {
	for {
		client, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("delay at %s: %w", d.Addr, err)
		}
		d.carriers.Go(func() { d.carry(ctx, client.(*net.TCPConn), time.Now()) })
	}
}

// carry connects to the target and carries both directions until both have ended or
// the connection is broken.
func (d *Delay) carry(ctx context.Context, client *net.TCPConn, start time.Time) {
	group, ctx := errgroup.WithContext(ctx)
	var closers sync.WaitGroup
	closers.Go(func() { closeAfter(ctx, client) })
	there, back := newQueue(), newQueue()
	established := start.Add(d.rtt)
	group.Go(func() error { return d.read(ctx, client, there, established) })
	group.Go(func() error {
		// The target learns of it with the last packet of the handshake.
		if err := sleep(ctx, established.Add(d.rtt/2)); err != nil {
			return err
		}
		conn, err := d.dial(ctx)
		if err != nil {
			return err
		}
		server := conn.(*net.TCPConn)
		closers.Go(func() { closeAfter(ctx, server) })
		group.Go(func() error { return d.read(ctx, server, back, start) })
		group.Go(func() error { return d.write(ctx, client, back) })
		return d.write(ctx, server, there)
	})
	_ = group.Wait() // it ends ctx; an error was passed on by a reset
	closers.Wait()
}

// closeAfter closes conn when ctx ends: when all was carried, on Close, or on an
// error, which must not look like an end to the other side.
func closeAfter(ctx context.Context, conn *net.TCPConn) {
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), context.Canceled) {
		_ = conn.SetLinger(0) // it fails only on a connection that is closed
	}
	_ = conn.Close() // nothing is to be done about it
}

// read puts what comes from a connection into the queue. What comes before the
// connection can be there counts from then on.
func (d *Delay) read(ctx context.Context, from *net.TCPConn, q *queue, established time.Time) error {
	for {
		buffer := d.buffers.Get().(*[]byte)
		n, err := from.Read(*buffer)
		c := chunk{due: time.Now().Add(d.rtt / 2), end: err}
		if earliest := established.Add(d.rtt / 2); c.due.Before(earliest) {
			c.due = earliest
		}
		if n > chunkSize/2 {
			c.data, c.buffer = (*buffer)[:n], buffer
		} else { // or a few bytes hold a whole buffer
			c.data = bytes.Clone((*buffer)[:n])
			d.buffers.Put(buffer)
		}
		if err := q.push(ctx, c); err != nil {
			return err
		}
		if err != nil {
			return nil // the writer passes it on when it is due
		}
	}
}

// write sends what is in the queue when it is due.
func (d *Delay) write(ctx context.Context, to *net.TCPConn, q *queue) error {
	for {
		c, err := q.pop(ctx)
		if err != nil {
			return err
		}
		if err := sleep(ctx, c.due); err != nil {
			return err
		}
		if _, err := to.Write(c.data); err != nil {
			return err
		}
		if c.buffer != nil {
			d.buffers.Put(c.buffer)
		}
		switch {
		case errors.Is(c.end, io.EOF):
			return to.CloseWrite()
		case c.end != nil:
			return c.end
		}
	}
}

// sleep returns at the time, or earlier when ctx ends.
func sleep(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
