// Package lazyfs serves objects that are not here yet, over FUSE: one read-only file
// system for the whole node, laid out like the directory of objects (/xy/CID), which
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
// Concurrency: go-fuse calls each method of the file system from a goroutine per
// request. Node numbers are given out by Lookup and taken back by Forget, so the table of
// nodes is as large as what the kernel remembers.
package lazyfs

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/objects"
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
}

// Stats counts requests since Mount, and the nodes the kernel remembers now.
type Stats struct{ Nodes, Lookups, Reads, Errors int64 }

// A Server is one mounted file system.
type Server struct {
	dir    string
	fs     *fileSystem
	dev    uint64        // of the mount, names its connection
	served chan struct{} // closed when the last request was answered

	unmount sync.Once
	err     error
}

// Mount mounts the file system at dir, which is made if it is not there. What a process
// that died has left mounted there goes first. The error is ErrNoFuse, wrapped, when this
// host does not let us.
func Mount(dir string, files Files, rd Reader, opts Options) (*Server, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := clearMountPoint(dir); err != nil {
		return nil, fmt.Errorf("mount lazy files at %s: %w", dir, err)
	}
	fs := newFileSystem(files, rd, opts.Logger)
	server, err := fuse.NewServer(fs, dir, mountOptions(opts.Logger))
	if err != nil {
		return nil, fmt.Errorf("mount lazy files at %s: %w", dir, explain(err))
	}
	s := &Server{dir: dir, fs: fs, served: make(chan struct{})}
	fs.invalidate = func(c cid.Cid) {
		name := c.String()
		shard, _ := shardNode(objects.Shard(name))
		server.EntryNotify(shard, name) // what the kernel has forgotten is an error that does not matter
	}
	go func() {
		defer close(s.served)
		server.Serve()
	}()
	err = server.WaitMount()
	if err == nil {
		err = s.identify()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mount lazy files at %s: %w", dir, err), s.Unmount())
	}
	return s, nil
}

func mountOptions(logger *slog.Logger) *fuse.MountOptions {
	return &fuse.MountOptions{
		AllowOther: true, Options: []string{"default_permissions"}, // modes decide, as on a disk
		FsName: "ipcs", Name: "ipcs",
		DirectMountStrict: true, // no fusermount needed
		DirectMountFlags:  syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_RDONLY,
		MaxBackground:     64, MaxWrite: 1 << 20, MaxReadAhead: 1 << 20,
		ExplicitDataCacheControl: true, // content never changes
		EnableSymlinkCaching:     true,
		DisabledCapabilities:     fuse.CAP_PASSTHROUGH, // overlayfs binds complete objects itself
		Logger:                   slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// identify learns the device number, by which the kernel names the connection.
func (s *Server) identify() error {
	var st unix.Stat_t
	if err := unix.Stat(s.dir, &st); err != nil {
		return err
	}
	s.dev = st.Dev
	return nil
}

// Unmount ends the file system, also when mounts that use it are still there: what they
// have open here fails from then on, as it would when the process ended. It waits for
// requests that are under way, having told them to end.
func (s *Server) Unmount() error {
	s.unmount.Do(func() {
		close(s.fs.stop)
		if err := s.detach(); err != nil {
			s.err = fmt.Errorf("unmount lazy files at %s: %w", s.dir, err)
			return // nothing would end the wait
		}
		<-s.served
		s.fs.fds.Close()
	})
	return s.err
}

// detach ends the connection and takes the mount away. A plain unmount would do only
// the latter, and not even that, while an overlay holds on to the file system.
func (s *Server) detach() error {
	err := unix.Unmount(s.dir, unix.MNT_FORCE|unix.MNT_DETACH)
	if err == nil {
		return nil
	}
	// Somebody else has unmounted it; users of the file system may be left all the same.
	select {
	case <-s.served:
		return nil
	default:
	}
	abort := fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", unix.Minor(s.dev))
	if aborted := os.WriteFile(abort, []byte("1"), 0); aborted != nil {
		return errors.Join(err, aborted)
	}
	return nil
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Nodes:   int64(s.fs.nodes.len()),
		Lookups: s.fs.lookups.Load(),
		Reads:   s.fs.reads.Load(),
		Errors:  s.fs.errors.Load(),
	}
}
