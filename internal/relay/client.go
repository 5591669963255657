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

	device sync.RWMutex // held to read by whoever writes to dev
	dev    *os.File     // nil: all goes through the relay
}

// Dial connects to the relay that listens at a socket. From then on it is this process
// that serves the file system.
func Dial(socket string) (*Client, error) {
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
	first := make([]byte, 1)
	if c.pid, c.dev, err = sock.readWith(first, "/dev/fuse"); err == nil {
		c.from = bufio.NewReaderSize(sock, 64<<10)
		c.nodes, err = readGreeting(io.MultiReader(bytes.NewReader(first), c.from))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("greeting of the relay at %s: %w", socket, err), c.Close())
	}
	return c, nil
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
	m := (*reply)[:n]
	if op == opRead && c.direct(m) {
		m = errorReply(in(request).unique(), 0)
		order.PutUint32(m[4:], answeredCode)
	}
	// What cannot be sent has nobody to go to: Serve ends.
	_ = c.send(m)
}

// direct gives the kernel a message without the relay. It says whether it could: the kernel
// may not want it any more.
func (c *Client) direct(m []byte) bool {
	c.device.RLock()
	defer c.device.RUnlock()
	if c.dev == nil {
		return false
	}
	// Many at a time: os.File writes one after the other.
	_, err := unix.Write(int(c.dev.Fd()), m)
	return err == nil || errors.Is(err, unix.ENOENT)
}

// Notify gives the kernel a message that it has not asked for.
func (c *Client) Notify(message []byte) error {
	if c.direct(message) {
		return nil
	}
	return c.send(message)
}

func (c *Client) send(message []byte) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	_, err := c.sock.Write(message)
	return err
}

// End has the relay unmount the file system and exit.
func (c *Client) End() error {
	m := errorReply(0, 0)
	order.PutUint32(m[4:], endCode)
	return c.send(m)
}

// Orphan returns, when the relay is gone, the device of the file system and the kernel's INIT
// request: what another relay needs besides the nodes. The error is ErrLost if the file system
// is lost. The device is the caller's.
func (c *Client) Orphan() (dev *os.File, init []byte, err error) {
	c.device.Lock()
	defer c.device.Unlock()
	dev, c.dev = c.dev, nil
	if dev == nil {
		return nil, nil, fmt.Errorf("%w: it has not given its device away", ErrLost)
	}
	why := "it ended before it had begun"
	if m := c.init.Load(); m != nil {
		switch err := connected(dev); {
		case err != nil:
			why = err.Error()
		case !canResend(*m):
			why = "this kernel repeats no requests (Linux 6.9 does)"
		default:
			return dev, *m, nil
		}
	}
	// With the last descriptor goes the file system, and who waits for it fails.
	return nil, nil, errors.Join(fmt.Errorf("%w: %s", ErrLost, why), dev.Close())
}

// Close leaves the file system to the next daemon.
func (c *Client) Close() error {
	c.device.Lock()
	dev := c.dev
	c.dev = nil
	c.device.Unlock()
	err := c.sock.Close()
	if dev != nil {
		err = errors.Join(err, dev.Close())
	}
	return err
}
