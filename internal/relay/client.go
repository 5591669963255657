//go:build linux

package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// readSize is where struct fuse_read_in has the number of bytes wanted.
const (
	opRead       = 15
	opReadDir    = 28
	opReadDirs   = 44 // FUSE_READDIRPLUS
	readSize     = requestHeader + 16
	smallMessage = 8192 // the answer to anything but these
)

// A Handler answers one request: it returns the length of the answer that it wrote into
// reply, or 0 for none. It is called concurrently.
type Handler func(request, reply []byte) int

// A Client is the daemon's side of a relay.
type Client struct {
	sock  *stream
	from  *bufio.Reader
	nodes []Node
	pid   int                    // of the relay
	init  atomic.Pointer[[]byte] // INIT as the kernel sent it

	unanswered atomic.Int64
	running    sync.WaitGroup // Handlers

	sending sync.Mutex
	small   sync.Pool
	large   sync.Pool
}

// Dial connects to the relay that listens at a socket. From then on it is this process
// that serves the file system.
func Dial(socket string) (*Client, error) { return dial(socket, greetTime) }

func dial(socket string, greetTime time.Duration) (*Client, error) {
	conn, err := dialCreds(socket)
	if err != nil {
		return nil, err
	}
	sock, err := newStream(conn)
	if err != nil {
		return nil, fmt.Errorf("connect to the relay at %s: %w", socket, err)
	}
	c := &Client{sock: sock}
	c.small.New = func() any { b := make([]byte, smallMessage); return &b }
	c.large.New = func() any { b := make([]byte, maxMessage); return &b }
	err = c.greet(greetTime)
	if errors.Is(err, unix.EAGAIN) {
		err = fmt.Errorf("it says nothing for %s; is it stopped? To go on without it, end it and the containers on ipcs images: %w", greetTime, err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("greeting of the relay at %s: %w", socket, err), c.Close())
	}
	return c, nil
}

// greet reads what the relay says first.
func (c *Client) greet(limit time.Duration) error {
	if err := c.sock.within(limit); err != nil {
		return err
	}
	first := make([]byte, 1)
	var err error
	if c.pid, _, err = c.sock.readWith(first, ""); err != nil {
		return err
	}
	c.from = bufio.NewReaderSize(c.sock, 64<<10)
	if c.nodes, err = readGreeting(io.MultiReader(bytes.NewReader(first), c.from)); err != nil {
		return err
	}
	return c.sock.within(0)
}

// Known returns what the kernel remembers of the file system from daemons before.
func (c *Client) Known() []Node { return c.nodes }

// Unanswered returns how many requests are being answered.
func (c *Client) Unanswered() int64 { return c.unanswered.Load() }

// Serve answers requests, each in a goroutine, until the relay is gone, another daemon
// serves, or Close is called. What is under way then is waited for by Wait.
func (c *Client) Serve(handle Handler) error {
	for {
		request := c.small.Get().(*[]byte)
		m, err := readMessage(c.from, *request, requestHeader)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("request from the relay: %w", err)
		}
		op := in(m).opcode()
		if op == opInit {
			init := slices.Clone(m)
			c.init.Store(&init)
		}
		if op == opForget || op == opBatchForget || op == opInit {
			c.answer(handle, m) // in order
			c.small.Put(request)
			continue
		}
		c.unanswered.Add(1)
		c.running.Go(func() {
			defer c.unanswered.Add(-1)
			c.answer(handle, m)
			c.small.Put(request)
		})
	}
}

// Wait waits for the requests that are under way.
func (c *Client) Wait() { c.running.Wait() }

// answer answers one request.
func (c *Client) answer(handle Handler, request []byte) {
	pool := &c.small
	op := in(request).opcode()
	sized := op == opRead || op == opReadDir || op == opReadDirs
	if sized && len(request) >= readSize+4 && int(order.Uint32(request[readSize:]))+replyHeader > smallMessage {
		pool = &c.large
	}
	reply := pool.Get().(*[]byte)
	defer pool.Put(reply)
	n := handle(request, *reply)
	if n == 0 {
		return
	}
	// What cannot be sent has nobody to go to: Serve ends.
	_ = c.send((*reply)[:n])
}

// Notify gives the kernel a message that it has not asked for.
func (c *Client) Notify(message []byte) error { return c.send(message) }

func (c *Client) send(message []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	_, err := c.sock.Write(message)
	return err
}

// End has the relay unmount the file system and exit. That it is gone already is no error.
func (c *Client) End() error {
	m := errorReply(0, 0)
	order.PutUint32(m[4:], endCode)
	if err := c.send(m); !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	return nil
}

// Init returns the kernel's INIT request, nil before it came.
func (c *Client) Init() []byte {
	if m := c.init.Load(); m != nil {
		return *m
	}
	return nil
}

// Close leaves the file system to the next daemon.
func (c *Client) Close() error { return c.sock.Close() }
