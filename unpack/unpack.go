//go:build linux

// Package unpack is containerd's differ for ipcs layers, for hosts and snapshotters that
// mount nothing lazily: it applies a layer to an ordinary directory, and makes a layer of
// what a container has changed.
//
// # Algorithm
//
// Apply opens the layer and extracts its index, which is normative: the tar is never made.
// One goroutine walks the index in its order, and makes directories, links, devices and
// whiteouts; several others fetch the contents of files from the node and write them. Hard
// links follow when all files are there, and the owners, modes and times of directories come
// last, since whatever is made in a directory changes its time. The outcome is what
// containerd has after applying the original tar: in the upper directory of an overlay, with
// whiteouts and marks for the kernel; elsewhere, with what they hide removed. All is done
// relative to open directories, and no symbolic link is followed but those that stand for
// the directory of an entry that the layer itself does not make; these are resolved below
// the root, as containerd does, and what lies behind them is made after all else, one at a
// time: two paths of a layer may lead to one place. A hostile tree below can thus not lead
// out of the root.
//
// A layer whose image kept its diffIDs (mediatype.AnnotationKeep) is the exception: its tar
// is rebuilt and applied by containerd's own code, and its digest is returned, which is what
// containerd compares with the diffID. Layers of all other types are applied by containerd's
// code too.
//
// Where the directory is one of the ipcs snapshotter's own, that is asked first: it mounts
// the layer, and nothing is written.
//
// Compare finds the upper directory of the changed overlay and walks that one alone; what it
// finds is compared with the lower tree, as containerd compares two whole trees. Where no
// upper directory can be told, or it does not say all, containerd's own comparison is used.
// The changes become a tar, and the tar a layer of the node, which is pinned; the root block
// goes to containerd's content store.
//
// # Concurrency
//
// A Differ may be used by any number of goroutines. No goroutine outlives the call that
// started it. The contents that are held in memory are bounded over all calls together.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/diff/apply"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/plugins/diff/walking"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

var (
	_ diff.Applier  = (*Differ)(nil)
	_ diff.Comparer = (*Differ)(nil)
)

// Node is where the blocks of layers come from, and go to.
type Node interface {
	layer.Source
	ipfs.Putter
	ipfs.Pinner
}

// Leases makes leases and ends them, as containerd's lease manager does.
type Leases interface {
	Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error)
	Delete(ctx context.Context, lease leases.Lease, opts ...leases.DeleteOpt) error
}

// Adopter is a snapshotter that mounts layers in place of unpacking them.
type Adopter interface {
	// Adopt says whether a directory that a layer is to be unpacked into is one of a
	// snapshot that will be the layer: then it stays empty.
	Adopt(ctx context.Context, dir string, layer ocispec.Descriptor) (bool, error)
}

// Config says what a Differ works with.
type Config struct {
	Node Node
	// Content is containerd's content store: ordinary layers are read from it, and the
	// descriptors that Compare returns are of blobs in it.
	Content content.Store
	// Leases, if set, keep what Compare wrote when the caller has no lease of its own:
	// containerd does not tell a differ of its client's.
	Leases Leases
	// Adopter, if set, is asked before an ipcs layer is unpacked.
	Adopter Adopter
	// Workers is how many files of a layer are fetched and written at a time. The default
	// is the number of cores, and 4 at least, since most of the time is spent waiting.
	Workers int
	Logger  *slog.Logger // default: none
}

// minWorkers is the least default of Config.Workers.
const minWorkers = 4

// maxHeld bounds the bytes of contents that all calls of Apply hold at a time.
const maxHeld = 64 << 20

// A Differ is a diff.Applier and a diff.Comparer.
type Differ struct {
	node     Node
	content  content.Store
	leases   Leases
	adopter  Adopter
	applier  diff.Applier  // for ordinary layers
	comparer diff.Comparer // likewise
	workers  int
	held     *semaphore.Weighted // of maxHeld
	log      *slog.Logger
}

// New returns a Differ. It uses neither the node nor the content store before it is called.
func New(cfg Config) (*Differ, error) {
	if cfg.Node == nil || cfg.Content == nil {
		return nil, errors.New("unpack: a node and a content store must be given")
	}
	if cfg.Workers <= 0 {
		cfg.Workers = max(runtime.GOMAXPROCS(0), minWorkers)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Differ{
		node:     cfg.Node,
		content:  cfg.Content,
		leases:   cfg.Leases,
		adopter:  cfg.Adopter,
		applier:  apply.NewFileSystemApplier(blobs{cfg.Content}),
		comparer: walking.NewWalkingDiff(cfg.Content),
		workers:  cfg.Workers,
		held:     semaphore.NewWeighted(maxHeld),
		log:      cfg.Logger,
	}, nil
}

// explain gives an error the class that containerd hands on to its client, and says what
// can be done. Errors of a context and errors that have a class stay as they are.
func explain(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, ipfs.ErrNotFound):
		return fmt.Errorf("%w; start a node that has the image and make it a peer of this one (node.peers; with Kubo, ipfs swarm connect), or convert the image again where its files can be reached: %w",
			err, errdefs.ErrUnavailable)
	case errors.Is(err, layer.ErrIndex), errors.Is(err, layer.ErrRoot), errors.Is(err, layer.ErrTarSplit),
		errors.Is(err, layer.ErrXattr), errors.Is(err, layer.ErrTooLarge), errors.Is(err, ipfs.ErrFile), errors.Is(err, ipfs.ErrHash):
		return fmt.Errorf("%w; the layer is broken, or made to do harm: convert the image again: %w", err, errdefs.ErrInvalidArgument)
	}
	return err
}
