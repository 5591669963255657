// Package lazyfs serves objects that are not here yet, over FUSE: one read-only file
// system for the whole node, laid out like the directory of objects (objects.Path), which
// overlayfs takes as its last data-only layer. Overlayfs comes here only for what it
// does not find among the objects on disk.
//
// A file may be looked up if Files knows it; its size is known from there, so nothing
// but Read ever waits for the network. Files have no open and no release (the first Open
// is answered with ENOSYS, FUSE_NO_OPEN), so Read goes by node: from a cached descriptor
// if the object is complete by now, else through the Reader.
//
// A read that cannot be served fails with EIO (ENOSPC when the disk is full), is logged
// with the file's path and CID, and may be repeated with more luck. A signal alone does
// not end a read, as it ends none from a disk: few programs expect EINTR there. A reader
// that is being killed is let go at once; what is fetched for it goes on.
//
// The mount itself, and the kernel's requests until they are answered, are held by another
// process (package relay), so that neither ends with the daemon. What the kernel knows of
// the file system a new daemon learns from there, and it looks up the rest in Files again.
// When that process dies, the Server has another one started, which learns it from here.
//
// Concurrency: each method of the file system is called from a goroutine per request. Node
// numbers are given out by Lookup and taken back by Forget, so the table of
// nodes is as large as what the kernel remembers.
package lazyfs

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/ipfs"
)

// Files knows the files that mounted chains need.
type Files interface {
	// Claims yields what is said of the file with this CID, and for logs a path at which
	// it is mounted: once for each size that is claimed.
	Claims(c cid.Cid) iter.Seq2[ipfs.File, string]
}

// A Reader reads files that may still be elsewhere.
type Reader interface {
	ReadAt(ctx context.Context, f ipfs.File, p []byte, off int64) (int, error)
	// Local opens the file if all of it is on this disk.
	Local(f ipfs.File) (*os.File, bool)
}

// Options configure a Server.
type Options struct {
	Logger *slog.Logger // default: discard
	// Observe is told of each read of bytes that the file has; it must be quick. Default: nobody
	// is told.
	Observe func(f ipfs.File, off, size int64)
	// Restart starts another relay for the file system of one that has died. Default: the file
	// system ends with its relay.
	Restart func(state relay.State) (*relay.Client, error)
}

// Stats counts requests since Serve.
type Stats struct {
	Nodes      int64 // that the kernel remembers now
	Requests   int64 // of all kinds
	Lookups    int64
	Reads      int64
	Local      int64 // reads that were answered from a complete object
	Errors     int64
	Unanswered int64 // requests that are being answered
	Restarts   int64 // relays that were started for those that died
}

// restartPause is how long a Server waits between relays that it starts.
const restartPause = 100 * time.Millisecond

// A Server serves the file system to the kernel, through a relay.
type Server struct {
	fs      *fileSystem
	log     *slog.Logger
	restart func(state relay.State) (*relay.Client, error)
	served  chan struct{} // closed when the last request was answered

	restarts atomic.Int64

	mu    sync.Mutex // guards what follows
	relay *relay.Client

	replacing sync.Mutex    // held by who starts another relay
	leaving   chan struct{} // closed by Close and Unmount
	closing   sync.Once
	err       error
}

// Serve serves the file system whose relay is at the other end of client, which is the
// Server's from now on. What the kernel remembers from a daemon before is taken up.
func Serve(client *relay.Client, files Files, rd Reader, opts Options) *Server {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	fs := newFileSystem(files, rd, opts.Logger)
	if opts.Observe != nil {
		fs.observe = opts.Observe
	}
	for _, n := range client.Known() {
		fs.restore(n)
	}
	s := &Server{fs: fs, log: opts.Logger, restart: opts.Restart, relay: client, served: make(chan struct{}), leaving: make(chan struct{})}
	fs.invalidate = func(c cid.Cid) {
		// What the kernel has forgotten is an error that does not matter.
		if err := s.client().Notify(invalEntry(c.String())); err != nil {
			opts.Logger.Debug("the kernel was not told to look a file up again", "cid", c.String(), "error", err)
		}
	}
	go func() {
		defer close(s.served)
		for next := client; next != nil; next = s.next(next) {
			defer next.Wait()
			s.serve(next)
		}
	}()
	return s
}

// serve answers what comes from one relay, until it is gone.
func (s *Server) serve(client *relay.Client) {
	protocol := fuse.NewProtocolServer(s.fs, mountOptions(s.log))
	err := client.Serve(func(request, reply []byte) int {
		s.fs.requests.Add(1)
		n, status := protocol.HandleRequest([][]byte{request}, [][]byte{reply})
		if !status.Ok() {
			s.log.Error("a request could not be answered", "status", status)
			if n == 0 {
				n = failed(request, reply)
			}
		}
		return n
	})
	if err != nil {
		s.log.Error("the lazy files are no longer served", "error", err)
	}
}

// next returns the client of a relay that takes the place of one that is gone, or nil. What is
// still being answered is answered once more: nobody knows whether the kernel got it.
func (s *Server) next(gone *relay.Client) *relay.Client {
	s.replacing.Lock()
	defer s.replacing.Unlock()
	if s.restart == nil {
		return nil
	}
	next, err := s.replace(gone)
	if err := errors.Join(err, gone.Close()); err != nil {
		s.log.Error("lazy files are lost", "error", err)
		return nil
	}
	if next == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.relay = next
	s.restarts.Add(1)
	s.log.Warn("the process that held the FUSE mount had died: another one holds it, and nothing is lost")
	return next
}

// replace starts another relay, and again if that dies before it has begun, for as long as
// somebody keeps the file system. It returns nil if the Server is closed meanwhile.
func (s *Server) replace(gone *relay.Client) (*relay.Client, error) {
	for deadline := time.Now().Add(relay.SpareTime); ; {
		select {
		case <-s.leaving:
			return nil, nil
		default:
		}
		next, err := s.restart(relay.State{Init: gone.Init(), Nodes: s.fs.known()})
		if err == nil || errors.Is(err, relay.ErrLost) || time.Now().After(deadline) {
			return next, err
		}
		s.log.Warn("the process that was to hold the FUSE mount has died, too: trying again", "error", err)
		select {
		case <-s.leaving:
		case <-time.After(restartPause):
		}
	}
}

func (s *Server) client() *relay.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.relay
}

// leave says that no relay will be started any more, and returns the one that there is.
func (s *Server) leave() *relay.Client {
	close(s.leaving)
	s.replacing.Lock() // one may just be starting
	defer s.replacing.Unlock()
	return s.client()
}

// failed answers a request with EIO, so that nobody waits for it (linux/fuse.h, struct
// fuse_out_header).
func failed(request, reply []byte) int {
	const size = 16
	binary.NativeEndian.PutUint32(reply, size)
	code := -int32(syscall.EIO)
	binary.NativeEndian.PutUint32(reply[4:], uint32(code))
	copy(reply[8:size], request[8:16])
	return size
}

func mountOptions(logger *slog.Logger) *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxBackground: 64, MaxWrite: 1 << 20, MaxReadAhead: 1 << 20,
		ExplicitDataCacheControl: true, // content never changes
		EnableSymlinkCaching:     true,
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH, // overlayfs binds complete objects itself
		Logger:                   slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

const notifyInvalEntry = 3 // FUSE_NOTIFY_INVAL_ENTRY

// invalEntry is the notification that makes the kernel look an object up again
// (linux/fuse.h, struct fuse_notify_inval_entry_out).
func invalEntry(name string) []byte {
	shard, _ := shardNode(objects.Shard(name))
	m := make([]byte, 16, 16+16+len(name)+1)
	m = binary.NativeEndian.AppendUint64(m, shard)
	m = binary.NativeEndian.AppendUint32(m, uint32(len(name)))
	m = binary.NativeEndian.AppendUint32(m, 0)
	m = append(append(m, name...), 0)
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	binary.NativeEndian.PutUint32(m[4:], notifyInvalEntry)
	return m
}

// Done is closed when the relay is gone, or the Server closed.
func (s *Server) Done() <-chan struct{} { return s.served }

// Close leaves the file system to the next daemon: requests that are under way are not
// answered, and wait for it. It returns when nothing of them runs here.
func (s *Server) Close() error {
	s.closing.Do(func() {
		s.err = s.leave().Close()
		close(s.fs.stop)
		s.ended()
	})
	return s.err
}

// Unmount ends the file system, also when mounts that use it are still there: what they
// have open here fails from then on, as do requests that are under way.
func (s *Server) Unmount() error {
	s.closing.Do(func() {
		close(s.fs.stop)
		client := s.leave()
		if s.err = client.End(); s.err == nil {
			<-s.served // the relay is gone, and with it the mount
		}
		s.err = errors.Join(s.err, client.Close())
		s.ended()
	})
	return s.err
}

func (s *Server) ended() {
	<-s.served
	s.fs.fds.Close()
}

// Relay returns the number of the process that holds the mount, and its memory.
func (s *Server) Relay() (pid int, m relay.Memory, err error) { return s.client().Memory() }

// DropRemoved closes objects that are kept open for reads and have been evicted.
func (s *Server) DropRemoved() { s.fs.fds.DropRemoved() }

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Nodes:      int64(s.fs.nodes.len()),
		Requests:   s.fs.requests.Load(),
		Lookups:    s.fs.lookups.Load(),
		Reads:      s.fs.reads.Load(),
		Local:      s.fs.local.Load(),
		Errors:     s.fs.errors.Load(),
		Unanswered: s.client().Unanswered(),
		Restarts:   s.restarts.Load(),
	}
}
