//go:build linux

// Package metafs serves metadata-only EROFS images (package erofs) over FUSE, for hosts whose
// kernel does not mount them: those without EROFS, and user namespaces, where no image may
// be mounted.
//
// A Server serves any number of mounts, in a process of its own, so that what containers
// lie on ends with no daemon. It needs nothing of the daemon after a mount was handed over:
// a file, which it maps into memory, and the device of the FUSE mount. A node number is that
// of an inode in the image, so there is nothing to remember of what the kernel knows, and
// nothing to hold for a file; what the kernel asks is answered from the image, and kept by
// the kernel for as long as it likes. If it is given folders, it reads the data of files
// there, at the paths that the image has for overlayfs, each time anew: what was read through
// the lazy file system once is read from the objects when it is there. A daemon that follows finds the process at its socket
// and hands over more. It ends when nothing is mounted and no daemon is connected.
//
// The socket speaks unixpacket: the server greets each client with one packet, and answers
// each of the client's, which carries the two files, with the text of an error or nothing.
//
// Concurrency: one goroutine for each connection, which hands over one mount at a time, and
// go-fuse's own for each mount. Images do not change, so those share nothing.
package metafs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/erofs"
)

// Version is that of the protocol, and of what images may hold. It is to be part of the
// socket's name: a daemon of another version has a server of its own, and the old one ends
// with what it serves.
const Version = 1

// A Server serves images.
type Server struct {
	ln  *net.UnixListener
	log *slog.Logger

	mu      sync.Mutex
	conns   map[*net.UnixConn]struct{}
	mounted int
	closed  bool

	running sync.WaitGroup // connections and mounts
}

// NewServer returns a Server for clients that connect to ln, a unixpacket socket, which is
// the Server's from now on. Serve must be called.
func NewServer(ln *net.UnixListener, log *slog.Logger) *Server {
	return &Server{ln: ln, log: log, conns: make(map[*net.UnixConn]struct{})}
}

// Serve answers until the last client is gone and nothing is mounted any more. There has to
// be a client first. When ctx is done, clients are served no longer, and mounts until they
// are unmounted.
func (s *Server) Serve(ctx context.Context) error {
	defer s.running.Wait()
	defer context.AfterFunc(ctx, s.close)()
	for {
		conn, err := s.ln.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept a daemon: %w", err)
		}
		if !s.add(conn) {
			_ = conn.Close() // it greets nobody any more
			continue
		}
		s.running.Go(func() {
			if err := s.talk(conn); err != nil {
				s.log.Error("a daemon is served no longer", "error", err)
			}
			s.remove(conn)
		})
	}
}

func (s *Server) add(conn *net.UnixConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) remove(conn *net.UnixConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = conn.Close() // the other end is gone
	delete(s.conns, conn)
	s.endIfIdle()
}

// endIfIdle ends Serve if there is nobody to serve. It is called with s.mu.
func (s *Server) endIfIdle() {
	if len(s.conns) == 0 && s.mounted == 0 && !s.closed {
		s.closed = true
		_ = s.ln.Close() // its file goes first, so that a new daemon starts another
	}
}

// close ends what serves daemons.
func (s *Server) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		_ = s.ln.Close()
	}
	for conn := range s.conns {
		_ = conn.Close()
	}
}

// talk answers one client until it is gone.
func (s *Server) talk(conn *net.UnixConn) error {
	if _, err := conn.Write([]byte(hello)); err != nil {
		return nil // it is gone
	}
	for {
		req, err := receive(conn)
		if err != nil || req == nil {
			return err
		}
		answer := ok
		if err := s.take(req); err != nil {
			s.log.Error("cannot serve an image", "error", err)
			answer = err.Error()
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return nil
		}
	}
}

// take serves an image from now on. Both files are the Server's.
func (s *Server) take(req *request) error {
	m, err := openMapping(req.image)
	if err := errors.Join(err, req.image.Close()); err != nil {
		return errors.Join(err, req.dev.Close())
	}
	r, err := erofs.NewReader(m)
	if err != nil {
		return errors.Join(err, unix.Munmap(m), req.dev.Close())
	}
	server, err := fuse.NewServer(newFileSystem(r, req.data, s.log), fmt.Sprintf("/dev/fd/%d", release(req.dev)), mountOptions(s.log))
	if err != nil {
		return errors.Join(fmt.Errorf("begin to serve: %w", err), unix.Munmap(m))
	}
	s.mu.Lock()
	s.mounted++
	s.mu.Unlock()
	s.running.Go(func() {
		server.Serve() // until it is unmounted everywhere
		if err := unix.Munmap(m); err != nil {
			s.log.Error("cannot unmap an image", "error", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.mounted--
		s.endIfIdle()
	})
	return nil
}

// openMapping maps all of a file.
func openMapping(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() <= 0 || info.Size() != int64(int(info.Size())) {
		return nil, fmt.Errorf("%w: %d bytes", erofs.ErrFormat, info.Size())
	}
	m, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map an image of %d bytes: %w", info.Size(), err)
	}
	return m, nil
}

// release returns the descriptor of a file that go-fuse is to own.
func release(f *os.File) int {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = f.Close()
	if err != nil {
		return -1 // which go-fuse refuses
	}
	return fd
}

func mountOptions(log *slog.Logger) *fuse.MountOptions {
	return &fuse.MountOptions{
		MaxBackground: 64, MaxWrite: 128 << 10,
		ExplicitDataCacheControl: true, // nothing ever changes
		EnableSymlinkCaching:     true,
		EnableAcl:                true,
		IDMappedMount:            true, Options: []string{"default_permissions"},
		ExtraCapabilities:    fuse.CAP_NO_OPENDIR_SUPPORT,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH,
		Logger:               slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// errno is an error as the kernel is told it.
func errno(err error) fuse.Status {
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, erofs.ErrAbsent):
		return fuse.ENOENT
	}
	return fuse.Status(syscall.EIO)
}
