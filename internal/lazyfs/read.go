package lazyfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/hinshun/ipcs/internal/fdcache"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	// failureHold is how long a read that failed after a longer wait fails again at once.
	// The kernel repeats a failed read-ahead page by page, for each reader in turn; each
	// would wait as long again.
	failureHold = time.Second
	// killPoll is how often a waiting reader that got a signal is looked at: the kernel
	// tells of the first signal only, and it may be another that kills.
	killPoll = 200 * time.Millisecond
)

var errNotHere = errors.New("object is not here yet")

// Read serves a complete object from disk, and has the rest fetched.
func (fs *fileSystem) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	fs.reads.Add(1)
	n := fs.nodes.get(in.NodeId)
	if n == nil {
		return nil, fuse.Status(syscall.ESTALE)
	}
	file, err := fs.file(n)
	if err != nil {
		fs.log.Error("cannot read a file", "cid", n.cid.String(), "error", err)
		return nil, fuse.EIO
	}
	off, size := int64(in.Offset), int64(len(buf))
	if size = min(size, file.Size-off); size <= 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	fs.observe(file, off, size)
	h, err := fs.fds.Acquire(n.id, func() (*os.File, error) {
		if f, ok := fs.rd.Local(file); ok {
			return f, nil
		}
		return nil, errNotHere
	})
	if err == nil {
		fs.local.Add(1)
		return &objectResult{h: h, off: off, size: int(size)}, fuse.OK
	}
	if err := n.held(off); err != nil {
		return nil, status(err)
	}
	start := time.Now()
	ctx, stop := fs.waitContext(cancel, in.Caller)
	defer stop()
	got, err := fs.rd.ReadAt(ctx, file, buf[:size], off)
	if errors.Is(err, ipfs.ErrFile) {
		fs.invalidate(n.cid) // by now somebody else may claim what is true
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fs.fail(ctx, n, off, start, err)
		return nil, status(err)
	}
	return fuse.ReadResultData(buf[:got]), fuse.OK
}

// errKilled ends the wait of a reader that is being killed, errStopped that of all.
var (
	errKilled  = fmt.Errorf("reader was killed: %w", syscall.EINTR)
	errStopped = errors.New("file system is being unmounted")
)

// waitContext returns a context that ends when the reader is killed, or on Unmount. stop
// must be called, and returns when nothing of it is left.
func (fs *fileSystem) waitContext(interrupted <-chan struct{}, caller fuse.Caller) (ctx context.Context, stop func()) {
	// The request's own context would end with any signal.
	ctx, cancel := context.WithCancelCause(&fuse.Context{Caller: caller})
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		var poll <-chan time.Time
		for {
			select {
			case <-done:
				return
			case <-fs.stop:
				cancel(errStopped)
				return
			case <-interrupted:
				interrupted = nil
				ticker := time.NewTicker(killPoll)
				defer ticker.Stop()
				poll = ticker.C
			case <-poll:
			}
			if poll != nil && isKilled(caller.Pid) {
				cancel(errKilled)
				return
			}
		}
	}()
	return ctx, func() {
		close(done)
		<-ended
		cancel(nil)
	}
}

// isKilled says whether the kernel is ending the thread: then SIGKILL is pending for it,
// whatever the signal was.
func isKilled(tid uint32) bool {
	b, err := os.ReadFile("/proc/" + strconv.FormatUint(uint64(tid), 10) + "/status")
	if err != nil {
		return true // it is gone
	}
	for line := range bytes.Lines(b) {
		mask, ok := bytes.CutPrefix(line, []byte("SigPnd:"))
		if !ok {
			continue
		}
		pending, err := strconv.ParseUint(string(bytes.TrimSpace(mask)), 16, 64)
		return err == nil && pending&(1<<(syscall.SIGKILL-1)) != 0
	}
	return false
}

// fail logs and remembers a failed read, and returns why it failed.
func (fs *fileSystem) fail(ctx context.Context, n *node, off int64, start time.Time, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	fs.errors.Add(1)
	path := "(no longer mounted)"
	for f, at := range fs.files.Claims(n.cid) {
		if f.Size == n.file().Size {
			path = at
		}
	}
	waited := time.Since(start)
	fs.log.Error("cannot read a file", "path", path, "cid", n.cid.String(), "offset", off, "waited", waited.Round(time.Millisecond), "error", err)
	if waited > failureHold {
		n.mu.Lock()
		n.failed = &failure{leaf: off / ipfs.LeafSize, at: time.Now(), err: err}
		n.mu.Unlock()
	}
	return err
}

// held returns the error of a read of the same leaf that has just failed.
func (n *node) held(off int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed != nil && n.failed.leaf == off/ipfs.LeafSize && time.Since(n.failed.at) < failureHold {
		return n.failed.err
	}
	return nil
}

// status is the errno for a failed request. Most reasons are EIO to a reader.
func status(err error) fuse.Status {
	for _, errno := range []syscall.Errno{syscall.ENOENT, syscall.ENOSPC, syscall.EDQUOT, syscall.EINTR} {
		if errors.Is(err, errno) {
			return fuse.Status(errno)
		}
	}
	return fuse.EIO
}

// objectResult is a range of a complete object. The descriptor is the result's until Done.
type objectResult struct {
	h    *fdcache.Handle[uint64]
	off  int64
	size int
}

// Seekable lets go-fuse splice from the file.
func (r *objectResult) Seekable() (fd uintptr, off int64, size int) {
	return r.h.File().Fd(), r.off, r.size
}

// Bytes reads, where splicing is not possible.
func (r *objectResult) Bytes(buf []byte) ([]byte, fuse.Status) {
	n, err := r.h.File().ReadAt(buf[:min(len(buf), r.size)], r.off)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fuse.EIO
	}
	return buf[:n], fuse.OK
}

// Size returns the number of bytes at most.
func (r *objectResult) Size() int { return r.size }

// Done gives the descriptor back.
func (r *objectResult) Done() { r.h.Release() }
