//go:build linux

// Package snapshotter keeps containerd's snapshots and hands out their mounts. It is the
// remote snapshotter "ipcs": a layer whose label names a layer root is there as soon as
// its index is, and any other layer is an ordinary directory, as containerd's overlay
// snapshotter has it. Both kinds mix in one chain.
//
// # Layers
//
// Prepare of an ipcs layer proves from the labels that containerd and the image agree on
// what the layer is (request.go), opens its index (opener.go), commits a snapshot and
// answers "already exists". Nothing is unpacked, ever: if the index cannot be had, Prepare
// fails. The snapshot has an empty directory like any other, which holds nothing but the
// owner that the directories above it inherit; beside it lies the block of the layer root,
// which is the blob that the image's manifest names. What pulls does not fetch blobs of
// snapshots that are there: they are written into containerd's content store when containerd
// looks at its own new record of the snapshot (whole.go).
//
// # Mounts
//
// The parents of a snapshot fall into runs of ipcs layers and ordinary directories. A run
// is merged into one metadata-only EROFS image (chains.go), built once, kept under
// Root/chains by a hash of its layer roots, and mounted under State/chains. A container
// gets one overlay:
//
//	lowerdir=<directories and EROFS mounts, top first>::<objects>::<lazy>
//
// A regular file of the EROFS redirects to /xy/CID, which the kernel looks for among the
// complete objects on disk and then in the lazy FUSE. The size that an index claims cannot
// make an object show anything but its verified bytes: the CID of a file of several leaves
// binds its size, a single leaf is only complete when its length is the one claimed
// (package objects), and a false claim of another image never gets in the way of a true one
// (package lazyfs). What an index says too much of an object that is here reads as the end
// of the file.
//
// With an ordinary layer below an ipcs one, overlayfs wants metacopy=on, and with it
// redirect_dir=on. What containerd applies a layer to must have plain paths as parents,
// since it splits lowerdir at every colon; for that, and where the options would not fit a
// page, the parents are mounted once under State/merged and stand as one directory
// (merged.go). For a container with a user namespace, what owners are taken from is mounted
// again under State/mapped, with ids mapped (idmap.go). None of these mounts is needed by an overlay once that is mounted: it holds
// what it lies on itself. So they are taken away at Close and on start, and running
// containers do not notice.
//
// Mounts must be seen by containerd, which makes the overlays: both must run in one mount
// namespace, or State must lie on a mount with shared propagation. New warns if it does
// neither.
//
// # Ahead of need
//
// As long as a snapshot that a container may run on is there, the files of its image come
// before they are read (ahead.go): those of its profile first, and then all. The profile is
// what the image's first container opened (record.go), or what the image record names.
//
// # Usage
//
// An ipcs snapshot uses no space of its own: objects are shared by all images of the
// host, and the store counts them. Usage says zero for it.
//
// # Concurrency
//
// All methods are safe for concurrent use. Metadata is in containerd's bolt store, one
// writer at a time, and nothing slow happens in a transaction. Each chain has a lock of
// its own, so that two Prepares build one image. Indexes are fetched by goroutines that
// belong to the content, not to the caller, and so are files that come ahead of need: Close
// ends them and waits.
package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay/overlayutils"
	"github.com/containerd/continuity/fs"
	"github.com/ipfs/go-cid"
	"github.com/moby/sys/mountinfo"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// DefaultIndexTimeout is how long the index of a layer may take unless Config says
// otherwise.
const DefaultIndexTimeout = 30 * time.Second

var (
	// ErrContradiction says that the labels of a layer contradict each other, or its
	// parent.
	ErrContradiction = errors.New("labels contradict each other")
	// ErrIndexUnavailable says that the index of a layer could not be had in time.
	ErrIndexUnavailable = errors.New("index of the layer is not available")
	// ErrUnsupported says that this host cannot mount ipcs layers.
	ErrUnsupported = errors.New("this host cannot mount ipcs layers")
	// ErrNoIDMap says that this host cannot map the ids of ipcs layers.
	ErrNoIDMap = errors.New("this host cannot map the ids of ipcs layers for user namespaces")
	// ErrNoTarget says that an ipcs layer was to be unpacked like a tar.
	ErrNoTarget = errors.New("an ipcs layer cannot be unpacked as a tar")
	// ErrNotRoot says that this process may not mount.
	ErrNotRoot = errors.New("the snapshotter needs root rights to mount")
)

// Config says where a Snapshotter keeps what. Paths are absolute.
type Config struct {
	Root         string        // kept: metadata, ordinary layers, EROFS images of chains
	State        string        // mounts; gone after Close, but for the lazy file system while it may be in use
	ObjectsDir   string        // complete objects, as objects.Store.ObjectsDir returns it
	IndexTimeout time.Duration // how long the index of a layer may take
	// AllowUnverifiedDiffIDs mounts layers of images that kept their diffIDs lazily. A kept
	// diffID proves nothing of the layer, and containerd shares snapshots by chainIDs that
	// are made of diffIDs: whoever makes such an image can put files into another one.
	AllowUnverifiedDiffIDs bool
	// Mounts says how ipcs layers are mounted; what it leaves open is found out by trying.
	Mounts Mounts
	// ServeImage mounts images where the kernel does not; with nil, nobody does.
	ServeImage ServeImage
	// Content is containerd's content store, which the blobs of ipcs layers are written to in
	// the namespace of each request, and whose manifests say how an image was pulled last; nil
	// for none.
	Content Content
	// Prefetch gets files before they are read: those of profiles first, and then, if Fill
	// says so, all. With nil, files are fetched when they are read.
	Prefetch Prefetcher
	Fill     FillMode
	// ProfileWindow is how long it is recorded what the first container of an image reads;
	// 0 records nothing.
	ProfileWindow time.Duration
	// Used is told now and then which files containers open, also those that are on disk; with
	// nil, they are not watched.
	Used func(object cid.Cid)
	// Free removes objects and returns their bytes; with nil, files stay when their last
	// snapshot is removed.
	Free func(ctx context.Context, objects []cid.Cid, since time.Time) (int64, error)
	// Here says whether a file is on this disk. It is asked of each file of a new layer, for
	// Counts; with nil, that is not counted.
	Here func(f ipfs.File) bool
	// Hint is told of the peers that an image names, before its layers are wanted; with nil, they
	// are ignored. The error is of what of them is not fit to be used.
	Hint func(peers []string) error
	// Origins are told where images are kept besides; nil for none.
	Origins Origins
	Logger  *slog.Logger
}

// Files is what a lazy mount asks which file a CID is. *Snapshotter implements it.
type Files interface {
	// Claims yields what layers say of a file, and its path in one of them: once for each
	// size, since the CID of a file of one leaf does not prove its size.
	Claims(c cid.Cid) iter.Seq2[ipfs.File, string]
	// Observe is to be told of each read of bytes that a file has.
	Observe(f ipfs.File, off, size int64)
	// Neighbours yields the other files in the directory of one, in one of the layers that have
	// it: those behind it first.
	Neighbours(f ipfs.File) iter.Seq[ipfs.File]
}

// A Lazy is the mounted file system of objects that are not here yet.
type Lazy interface {
	// Close leaves it mounted, for the process that follows.
	io.Closer
	// Unmount ends it: what uses it fails.
	Unmount() error
	// Recheck is called for each layer that Files comes to know, with its files by CID.
	Recheck(find func(c cid.Cid) (ipfs.File, bool))
}

// MountLazy mounts a Lazy at dir, or takes up the one that a process before has left there.
type MountLazy func(dir string, files Files) (Lazy, error)

// A Snapshotter is containerd's snapshotter "ipcs".
type Snapshotter struct {
	root           string
	log            *slog.Logger
	ms             *storage.MetaStore
	overlayOptions []string // as the overlay snapshotter has them
	support        support
	unverified     bool                       // Config.AllowUnverifiedDiffIDs
	data           []string                   // data-only layers, the first that has a file wins
	lazyPath       string                     // where the lazy file system is mounted
	namePeers      func(peers []string) error // Config.Hint
	origins        Origins

	opener   *opener
	files    *fileSet
	chains   *chains
	merged   *held
	mapped   *held
	blobs    *blobs
	lazy     Lazy
	profiles profiles
	recorder *recorder
	uses     *uses
	freer    *freer
	healer   *healer
	shared   *shared
	ahead    *ahead
	prefetch Prefetcher // may be nil
	// manifests may be nil: of an image is known then what its first pull said.
	manifests Manifests
	fill      FillMode
	// lazyUsed is mayBeMounted, for Close, which has no context.
	lazyUsed func() (bool, error)

	closing sync.Once
	closed  error
}

var (
	_ snapshots.Snapshotter = (*Snapshotter)(nil)
	_ snapshots.Cleaner     = (*Snapshotter)(nil)
	_ Files                 = (*Snapshotter)(nil)
)

// New opens or creates the snapshots in cfg.Root, clears State of what a process before
// left there but for the lazy file system, and goes on with that one or mounts it. Blocks of indexes come from src.
func New(ctx context.Context, cfg Config, src layer.Source, lazy MountLazy) (*Snapshotter, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Snapshotter{root: cfg.Root, log: cfg.Logger, unverified: cfg.AllowUnverifiedDiffIDs}
	if err := clearState(cfg.State); err != nil {
		return nil, err
	}
	if err := s.makeRoot(); err != nil {
		return nil, err
	}
	s.overlayOptions = overlayOptions(cfg.Root, s.log)
	s.support = (&trial{
		image: filepath.Join(cfg.Root, chainsDir, tempPrefix+"probe"), dir: filepath.Join(cfg.State, probeDir), hide: filepath.Join(cfg.Root, hideDir),
		options: s.overlayOptions, serve: cfg.ServeImage, mounts: cfg.Mounts,
	}).probe()
	s.support.report(s.log)
	warnNamespace(s.log, cfg.State)
	s.lazyPath = filepath.Join(cfg.State, lazyDir)
	s.data = dataLayers(s.support.data, cfg.ObjectsDir, s.lazyPath)
	s.namePeers, s.origins = cfg.Hint, cfg.Origins
	s.files = newFileSet()
	s.opener = newOpener(src, cfg.IndexTimeout, s.log)
	s.opener.recorded = s.origins.Recorded
	s.chains = newChains(filepath.Join(cfg.Root, chainsDir), filepath.Join(cfg.State, chainsDir), s.mounter(cfg.ServeImage), s.support.data, s.log)
	s.merged, s.mapped = newHeld(filepath.Join(cfg.State, mergedDir), s.log), newHeld(filepath.Join(cfg.State, mappedDir), s.log)
	s.blobs = newBlobs(cfg.Content, s.log)
	if cfg.Content != nil {
		s.manifests = cfg.Content
	}
	s.uses = newUses(cfg.Used, s.mountedImages, s.log)
	s.freer = newFreer(filepath.Join(cfg.Root, unusedDir), cfg.Free, s.unusedObjects, s.log)
	s.shared = newShared(cfg.Here, s.files)
	s.healer = &healer{get: s.getAll, lazy: s.lazyPath, file: filepath.Join(cfg.State, "unhealed"), log: s.log}
	if err := s.openProfiles(&cfg); err != nil {
		return nil, errors.Join(err, s.ms.Close())
	}
	before, err := s.load(ctx)
	if err == nil {
		err = s.recall(ctx, before.roots)
	}
	if err != nil {
		return nil, errors.Join(err, s.ms.Close())
	}
	s.lazyUsed = func() (bool, error) { return s.mayBeMounted(context.WithoutCancel(ctx)) }
	if err := s.mountLazy(ctx, lazy, before); err != nil {
		return nil, errors.Join(err, s.ms.Close())
	}
	for key, on := range before.used {
		s.used(ctx, key, on.id, on.links, stageUnknown)
	}
	s.uses.start(ctx)
	if err := s.freeLeft(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// The folders in Root and State.
const (
	snapshotsDir = "snapshots"
	chainsDir    = "chains"
	profilesDir  = "profiles"
	hideDir      = "hide"
	unusedDir    = "unused"
	mergedDir    = "merged"
	mappedDir    = "mapped"
	lazyDir      = "lazy"
	probeDir     = "probe"
)

// stateDirs returns the folders in State whose mounts are of one process, those first whose
// mounts lie on others.
func stateDirs() []string { return []string{mergedDir, mappedDir, probeDir, chainsDir} }

// clearState clears State of what a process before left there. A lazy file system stays,
// and is not even looked at: it may be waiting for this process.
func clearState(state string) error {
	if err := clearMounts(state, stateDirs()); err != nil {
		return err
	}
	lazy := filepath.Join(state, lazyDir)
	if mounted, err := mountinfo.GetMounts(mountinfo.SingleEntryFilter(lazy)); err != nil || len(mounted) > 0 {
		return err
	}
	return os.MkdirAll(lazy, 0o700)
}

// complete fills in defaults and checks what the caller chose.
func (cfg *Config) complete() error {
	for name, path := range map[string]string{"root": cfg.Root, "state": cfg.State, "objects": cfg.ObjectsDir} {
		// Colons, commas and backslashes mean something in the options of overlayfs.
		if !filepath.IsAbs(path) || strings.ContainsAny(path, ":,\\\"") {
			return fmt.Errorf("snapshotter: the %s folder must be an absolute path without colon, comma, quote or backslash, not %q", name, path)
		}
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: run it as root, or as root of a user namespace, not as user %d", ErrNotRoot, os.Geteuid())
	}
	if cfg.IndexTimeout <= 0 {
		cfg.IndexTimeout = DefaultIndexTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Origins == nil {
		cfg.Origins = noOrigins{}
	}
	return nil
}

// makeRoot makes the folders in Root and opens the metadata.
func (s *Snapshotter) makeRoot() error {
	for _, dir := range []string{snapshotsDir, chainsDir, profilesDir} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o700); err != nil {
			return fmt.Errorf("make the folders of the snapshotter: %w", err)
		}
	}
	if err := makeHide(filepath.Join(s.root, hideDir)); err != nil {
		return fmt.Errorf("make the layer that hides the objects: %w", err)
	}
	if ok, err := fs.SupportsDType(s.root); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", s.root, err)
	} else if !ok {
		return fmt.Errorf("%s cannot hold layers of an overlay: its file system does not tell the types of directory entries (on XFS, format it with ftype=1)", s.root)
	}
	var err error
	s.ms, err = storage.NewMetaStore(filepath.Join(s.root, "metadata.db"))
	return err
}

// overlayOptions returns the options that the overlay snapshotter gives every overlay.
func overlayOptions(root string, log *slog.Logger) []string {
	var options []string
	userxattr, err := overlayutils.NeedsUserXAttr(root)
	if err != nil {
		log.Warn("cannot tell whether overlays need userxattr", "err", err)
	}
	if userxattr {
		options = append(options, "userxattr")
	}
	if _, err := os.Stat("/sys/module/overlay/parameters/index"); err == nil {
		options = append(options, "index=off")
	}
	return options
}

// Close unmounts what is in State. Overlays of containers stay, and so does the lazy file
// system if there may be any: they wait for the next process if they read from it.
func (s *Snapshotter) Close() error {
	s.closing.Do(func() {
		s.healer.close()
		s.freer.close()
		s.shared.close()
		s.uses.close()
		s.recorder.close()
		s.ahead.close()
		s.opener.close()
		s.blobs.close()
		errs := []error{s.merged.close(), s.mapped.close(), s.chains.close(), s.closeLazy()}
		for _, dir := range stateDirs() {
			path := filepath.Join(filepath.Dir(s.lazyPath), dir)
			if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		s.closed = errors.Join(append(errs, s.ms.Close())...)
	})
	return s.closed
}
