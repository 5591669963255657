//go:build linux

// Package relay keeps a FUSE file system alive while the daemons that serve it come and
// go. A Relay, in a process of its own, holds the mount and /dev/fuse; it passes what the
// kernel asks to the daemon that is connected to it, and the answers back. When the
// daemon dies, what it has not answered is kept, and passed to the next one: whoever
// reads waits, and nothing fails.
//
// The relay knows of the file system only what a new daemon must be told: the kernel's
// INIT request, which it repeats to each (only the first answer goes to the kernel); the
// requests that nobody has answered; and the nodes that the kernel remembers, with the
// names they were found by. So it rarely changes, and a new version of the daemon takes
// over from an old one.
//
// A file system without a daemon for longer than Patience fails its readers with EIO
// until there is one again: a reader must not hang for ever where nobody starts one.
//
// Neither is the relay's end that of the file system. Another process keeps its device, too
// (Spare). When the relay dies, the daemon starts another one on that (State), which has the
// kernel say again what it has no answer to (Linux 6.9; before, the device is given up, and reads
// fail). So it ends when relay and daemon die together, and when the relay dies after its Spare,
// for which there is no other: FindSpare tells.
//
// Concurrency. One goroutine reads from the kernel and sends to the daemon that is
// connected; each connection, of which the last one counts, has a goroutine that receives
// answers and writes them to the kernel. They share what is guarded by Relay.mu, which
// nobody holds while he waits for a socket.
package relay

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultPatience is how long requests wait for a daemon.
const DefaultPatience = 2 * time.Minute

// Options configure a Relay.
type Options struct {
	Patience time.Duration // how long requests wait for a daemon; default DefaultPatience
	State    State         // what a relay before knew of the file system
	Logger   *slog.Logger  // default: discard
}

// A Relay passes messages between the kernel and a daemon.
type Relay struct {
	dir      string   // the mount point
	dev      *os.File // /dev/fuse, blocking
	ln       *net.UnixListener
	patience time.Duration
	log      *slog.Logger

	running sync.WaitGroup // goroutines of connections

	mu      sync.Mutex // guards what follows
	init    []byte     // INIT as the kernel sent it, nil before
	started bool       // INIT was answered
	waiting map[uint64]*request
	serial  uint64
	nodes   nodes
	conn    *conn // nil without a daemon
	given   bool  // nobody came for Patience: requests fail
	patient *time.Timer
	ended   bool
}

// request is what the kernel waits for an answer to.
type request struct {
	serial    uint64 // the order they came in
	message   []byte
	interrupt []byte // nil unless the kernel wants it to end early
}

// New returns a Relay of the file system that is mounted at dir and has the device dev,
// for daemons that connect to ln. Both are the Relay's from now on. Serve must be called.
func New(dir string, dev *os.File, ln *net.UnixListener, opts Options) *Relay {
	if opts.Patience <= 0 {
		opts.Patience = DefaultPatience
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Relay{
		dir: dir, dev: dev, ln: ln, patience: opts.Patience, log: opts.Logger,
		waiting: make(map[uint64]*request), nodes: make(nodes),
		init: opts.State.Init, started: opts.State.Init != nil,
	}
	for _, n := range opts.State.Nodes {
		r.nodes[n.ID] = n
	}
	r.patient = time.AfterFunc(r.patience, r.giveUp)
	return r
}

// Serve passes messages until the file system is unmounted, or ctx is done, and then
// ends what is left.
func (r *Relay) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, r.end)
	defer stop()
	accepting, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(accepting)
		r.accept()
	}()
	r.running.Go(func() { r.watch(done) })
	err := r.resume()
	if err == nil {
		err = r.read()
	}
	close(done)
	r.mu.Lock()
	r.ended = true
	c := r.conn
	r.conn = nil
	r.mu.Unlock()
	r.patient.Stop()
	err = errors.Join(err, r.ln.Close())
	<-accepting
	if c != nil {
		c.close()
	}
	r.running.Wait()
	return errors.Join(err, r.dev.Close())
}

// end takes the mount away. What is mounted elsewhere of the file system fails.
func (r *Relay) end() {
	if err := unix.Unmount(r.dir, unix.MNT_FORCE|unix.MNT_DETACH); err != nil {
		r.log.Error("cannot unmount", "dir", r.dir, "err", err)
	}
}

// read takes requests from the kernel until there is no file system any more.
func (r *Relay) read() error {
	buf := make([]byte, maxMessage)
	for {
		n, err := r.dev.Read(buf)
		switch {
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ECONNABORTED): // the latter while it is being taken away
			return nil
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue // a request that was taken back
		case err != nil:
			return fmt.Errorf("read from the FUSE device: %w", err)
		case n < requestHeader:
			return fmt.Errorf("a FUSE request of %d bytes", n)
		}
		m := slices.Clone(buf[:n])
		switch c, errno := r.take(m); {
		case errno != 0:
			r.write(errorReply(in(m).unique(), errno))
		case c != nil:
			c.send(m)
		}
	}
}

// take takes up a request, and returns where to send it, or how it fails.
func (r *Relay) take(m []byte) (to *conn, failed syscall.Errno) {
	r.mu.Lock()
	defer r.mu.Unlock()
	req := in(m)
	switch req.opcode() {
	case opForget, opBatchForget:
		r.nodes.forgotten(req)
	case opPoll, opFlush:
		// Without asking a daemon: who waits for this may hold what its socket needs, if it
		// is in the same process (epoll's lock), or be about to start a daemon, with a copy of
		// a file that is closed by that. The kernel asks once.
		return nil, syscall.ENOSYS
	case opInterrupt:
		target, ok := r.waiting[req.interrupted()]
		if !ok {
			return nil, 0
		}
		target.interrupt = m
	default:
		if r.given && req.opcode() != opInit {
			return nil, syscall.EIO
		}
		if req.opcode() == opInit {
			r.init = m
		}
		r.serial++
		r.waiting[req.unique()] = &request{serial: r.serial, message: m}
	}
	return r.conn, 0
}

// accept takes connections until the listener is closed.
func (r *Relay) accept() {
	for {
		sock, err := r.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			r.log.Error("cannot accept a daemon", "err", err)
			continue
		}
		stream, err := newStream(sock)
		if err != nil {
			r.log.Error("cannot accept a daemon", "err", err)
			continue
		}
		r.connect(stream)
	}
}

// connect makes a connection the one that counts, and tells it what it must know.
func (r *Relay) connect(sock *stream) {
	c := &conn{sock: sock, pid: sock.peer()}
	// Until it was told, nothing else is sent to it.
	c.sending.Lock()
	defer c.sending.Unlock()
	messages := r.adopt(c)
	if messages == nil {
		c.close()
		return
	}
	r.running.Go(func() { r.disconnect(c, r.receive(c)) })
	if _, err := messages.WriteTo(sock); err != nil {
		c.close() // the receiver sees it too
	}
}

// adopt returns what a new daemon must be told, or nil if it comes too late.
func (r *Relay) adopt(c *conn) net.Buffers {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return nil
	}
	if r.conn != nil {
		r.conn.close() // the new daemon knows better
	}
	r.conn, r.given = c, false
	r.patient.Stop()
	messages := net.Buffers{greeting(r.nodes.all())}
	if r.started {
		messages = append(messages, r.init)
	}
	for _, req := range r.unanswered() {
		messages = append(messages, req.message)
		if req.interrupt != nil {
			messages = append(messages, req.interrupt)
		}
	}
	r.log.Info("a daemon serves the files", "nodes", len(r.nodes), "unanswered", len(r.waiting))
	return messages
}

// unanswered returns the requests that wait, in the order they came in. It is called with
// r.mu.
func (r *Relay) unanswered() []*request {
	return slices.SortedFunc(maps.Values(r.waiting), func(a, b *request) int { return cmp.Compare(a.serial, b.serial) })
}

// receive passes answers to the kernel until the connection ends.
func (r *Relay) receive(c *conn) error {
	from := bufio.NewReaderSize(c.sock, 64<<10)
	buf := make([]byte, maxMessage)
	for {
		m, err := readMessage(from, buf, replyHeader)
		if err != nil {
			return err
		}
		r.answer(c, m)
	}
}

// answer passes one answer to the kernel, if it waits for it.
func (r *Relay) answer(c *conn, m []byte) {
	unique := out(m).unique()
	switch {
	case unique == 0 && out(m).code() == endCode:
		r.end()
		return
	case unique == 0, unique&interruptBit != 0:
		r.write(m) // a notification, or what became of an interrupt
		return
	}
	r.mu.Lock()
	if r.conn != c { // another daemon answers by now
		r.mu.Unlock()
		return
	}
	req, ok := r.waiting[unique]
	if !ok {
		r.mu.Unlock() // the answer to a repeated INIT
		return
	}
	delete(r.waiting, unique)
	undo := func() {}
	switch in(req.message).opcode() {
	case opInit:
		r.started = true
	case opLookup:
		undo = r.nodes.answered(in(req.message), m)
	}
	r.mu.Unlock()
	if !r.write(m) {
		r.mu.Lock()
		undo()
		r.mu.Unlock()
	}
}

// write hands a message to the kernel, and says whether it was wanted.
func (r *Relay) write(m []byte) bool {
	_, err := r.dev.Write(m)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		r.log.Warn("the kernel refused an answer", "err", err)
	}
	return err == nil
}

// disconnect takes up that a daemon is gone.
func (r *Relay) disconnect(c *conn, err error) {
	c.close()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != c || r.ended {
		return
	}
	r.conn = nil
	r.failOwn(c.pid)
	r.patient.Reset(r.patience)
	r.log.Warn("the daemon is gone: reads wait for the next one", "patience", r.patience, "err", err)
}

// giveUp fails what waits for a daemon.
func (r *Relay) giveUp() {
	r.mu.Lock()
	if r.conn != nil || r.ended || !r.started {
		r.mu.Unlock()
		return
	}
	r.given = true
	failed := r.waiting
	r.waiting = make(map[uint64]*request)
	r.mu.Unlock()
	r.log.Error("no daemon came: reads of files that are not on this disk fail", "waited", r.patience, "failed", len(failed))
	for unique := range failed {
		r.write(errorReply(unique, syscall.EIO))
	}
}

// conn is the connection of a daemon.
type conn struct {
	sock    *stream
	pid     int // of the daemon; 0 if it is not known
	sending sync.Mutex
}

// send sends one message. What cannot be sent waits for the next daemon.
func (c *conn) send(m []byte) {
	c.sending.Lock()
	defer c.sending.Unlock()
	if _, err := c.sock.Write(m); err != nil {
		c.close() // the receiver sees it too
	}
}

// close closes the connection: there is nobody to tell of errors.
func (c *conn) close() { _ = c.sock.Close() }
