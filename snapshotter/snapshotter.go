//go:build linux

// Package snapshotter keeps containerd's snapshots and hands out their mounts.
package snapshotter

import (
	"errors"
	"io"
	"iter"
	"log/slog"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

var (
	// ErrContradiction says that the labels of a layer contradict each other.
	ErrContradiction = errors.New("labels contradict each other")
	// ErrNotRoot says that this process may not mount.
	ErrNotRoot  = errors.New("no root rights")
	errSkeleton = errors.New("snapshotter: not available yet")
)

// Config says where a Snapshotter keeps what.
type Config struct {
	Root         string        // kept: metadata, ordinary layers, EROFS images of chains
	State        string        // mounts; gone after Close
	ObjectsDir   string        // complete objects, as objects.Store.ObjectsDir returns it
	IndexTimeout time.Duration // how long the index of a layer may take; default 30 s
	Logger       *slog.Logger
}

// Files is what a lazy mount asks which file a CID is. *Snapshotter implements it.
type Files interface {
	File(c cid.Cid) (f ipfs.File, path string, ok bool)
}

// MountLazy mounts the file system of objects that are not here yet at dir. Close of
// what it returns unmounts it.
type MountLazy func(dir string, files Files) (io.Closer, error)

// ChainStatus says how one chain of ipcs layers stands.
type ChainStatus struct {
	ID      string // names the chain for ChainFiles
	Layers  int
	Files   int   // distinct objects its layers name
	Bytes   int64 // of them
	Mounted bool
	Mode    string // how its EROFS image is mounted: "file" or "loop"
}

// A Snapshotter is containerd's snapshotter "ipcs".
type Snapshotter struct{ snapshots.Snapshotter }

// New opens or creates the snapshots in cfg.Root.
func New(cfg Config, src layer.Source, lazy MountLazy) (*Snapshotter, error) { return nil, errSkeleton }

// Status lists the chains.
func (s *Snapshotter) Status() []ChainStatus { return nil }

// ChainFiles yields the distinct objects of a chain.
func (s *Snapshotter) ChainFiles(id string) iter.Seq[ipfs.File] {
	return func(func(ipfs.File) bool) {}
}

// File implements Files.
func (s *Snapshotter) File(c cid.Cid) (ipfs.File, string, bool) { return ipfs.File{}, "", false }
