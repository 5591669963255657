// Package lazyfs serves objects that are not here yet, over FUSE.
package lazyfs

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// ErrNoFuse says that this host lets us mount no FUSE file system.
var ErrNoFuse = errors.New("FUSE is not available")

var errSkeleton = errors.New("lazyfs: not available yet")

// Files knows the files that mounted chains need; path is for logs.
type Files interface {
	File(c cid.Cid) (f ipfs.File, path string, ok bool)
}

// A Reader reads files that may still be elsewhere.
type Reader interface {
	ReadAt(ctx context.Context, f ipfs.File, p []byte, off int64) (int, error)
	// Local opens the file if all of it is on this disk.
	Local(f ipfs.File) (*os.File, bool)
}

// Options configure a Server.
type Options struct{ Logger *slog.Logger }

// Stats counts requests.
type Stats struct{ Nodes, Lookups, Reads, Errors int64 }

// A Server is one mounted file system.
type Server struct{}

// Mount mounts at dir.
func Mount(dir string, files Files, rd Reader, opts Options) (*Server, error) {
	return nil, errSkeleton
}

func (s *Server) Unmount() error { return nil }
func (s *Server) Stats() Stats   { return Stats{} }
