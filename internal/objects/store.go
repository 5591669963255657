// Package objects stores whole files by CID, one plain file each: the cache that
// overlayfs reads from, and what peers are served from. No leaf is kept twice.
//
//	DIR/objects/xy/CID  a whole file by its CID, or a single raw leaf by the leaf's CID
//	                    (a file of one leaf is its leaf, so the two are the same thing)
//	DIR/repo.db         bbolt: dag-pb blocks by multihash, references leaf → object,
//	                    pins, state
//	DIR/partial/        files being written; emptied by Open
//	DIR/lock, version   one process at a time; the layout's version
//
// A file enters objects/ by a rename, complete and verified (Partial, Put). When a
// file of several leaves is complete, its leaves are served out of it by reference,
// and loose copies of them go at the next Sync, when the file itself is on disk.
//
// Durability. Put and Commit return when what they stored can be read back, also
// after a crash of the process (but for blocks that are not raw leaves: those wait in
// memory, a few MiB at most, for the next Sync). Sync makes everything durable with
// one syncfs and one database transaction; Pin does so before it records the pin; a
// background Sync follows every change within syncInterval. After an unclean boot
// Open hashes every object again that is newer than the last Sync. Objects that rot
// later are found when a block is read: every Get verifies what it returns.
//
// Limit. With one, objects that were not used for longest are unlinked when there are too
// many bytes of them, and nothing spare is left: recency is the objects' access times, written in batches (Touch). What
// pins need stays, which is found out by walking their DAGs whenever something has to go; so
// does what was Put within the last hour, since pins come last. Nothing is truncated: what is
// open or mounted can still be read, and the disk gets the space when that ends.
//
// Check hashes everything that is there, and removes what is wrong, so that it is fetched again.
//
// Concurrency. All methods may be called by any number of goroutines. Writers of the
// same object race harmlessly: both have verified bytes, and the first rename wins.
package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fdcache"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	objectsName = "objects"
	// Hidden is the one directory in ObjectsDir, which all objects are below. On kernels
	// that have no data-only layers, ObjectsDir is an ordinary layer of containers' roots,
	// and a whiteout of this name hides it.
	Hidden      = ".ipcs-objects"
	partialName = "partial"
	// syncInterval bounds what has to be hashed again after a power failure.
	syncInterval = 10 * time.Second
	// maxPartialFDs bounds the files in the making that are kept open.
	maxPartialFDs = 128
)

// Options configure a Store.
type Options struct {
	Logger *slog.Logger // default: discard
	// Evicted is called after objects were evicted or freed: who keeps objects open is to close
	// them. Default: nobody does.
	Evicted func()
	// Spare is what goes before any object when there is no room. Default: nothing.
	Spare Spare
}

// Spare is what takes room beside the objects, and can be done without. It has locks of its own,
// and calls nothing of the Store.
type Spare interface {
	Bytes() int64
	// Drop frees about so many bytes at least, or all, and says how many.
	Drop(bytes int64) int64
}

type noSpare struct{}

func (noSpare) Bytes() int64     { return 0 }
func (noSpare) Drop(int64) int64 { return 0 }

// A Store keeps blocks, files and pins in one directory.
type Store struct {
	dir    string
	log    *slog.Logger
	gone   func() // Options.Evicted
	spare  Spare
	lock   *os.File
	root   *os.File // the directory, for syncfs
	db     *kv
	bootID string

	partials *fdcache.Cache[partKey]
	parts    partFiles
	serial   atomic.Uint64 // names files in partial/
	temps    sync.Map      // those that are in use
	objects  atomic.Int64
	bytes    atomic.Int64
	used     atomic.Int64  // as Space.Used
	counted  chan struct{} // closed when they include what was there at Open
	recount  atomic.Bool   // they may be a little wrong: an object was not of the size it had

	// gate is held to read by whoever adds something and says that it is there, and to write
	// while objects are evicted.
	gate       sync.RWMutex
	discarding sync.Mutex // held while a damaged object is removed
	room       room
	recent     recency

	dirty   chan struct{} // 1 element while there is something to sync
	changed atomic.Bool   // something was stored since the last sync began
	syncing sync.Mutex
	doomed  doomed

	closing   chan struct{}
	wg        sync.WaitGroup // maintenance
	checks    checks
	closeOnce sync.Once
	closeErr  error
}

// Stats counts what is in objects/. Bytes are file sizes: holes count.
type Stats struct{ Objects, Bytes int64 }

// Open opens the store in dir and creates it if there is none. The error is ErrLocked,
// wrapped, when another process has it open.
func Open(dir string, opts Options) (*Store, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("open store %s: find out whether the machine was restarted: %w", dir, err)
	}
	return openBoot(dir, opts, string(id))
}

// openBoot is Open on a machine whose current boot has this ID.
func openBoot(dir string, opts Options, bootID string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Evicted == nil {
		opts.Evicted = func() {}
	}
	if opts.Spare == nil {
		opts.Spare = noSpare{}
	}
	s := &Store{
		dir: dir, log: opts.Logger, gone: opts.Evicted, spare: opts.Spare, bootID: bootID,
		partials: fdcache.New[partKey](maxPartialFDs),
		dirty:    make(chan struct{}, 1), closing: make(chan struct{}),
		counted: make(chan struct{}),
		room:    room{wake: make(chan struct{}, 1), put: make(map[key]time.Time), pinning: make(map[cid.Cid]int)},
	}
	if err := s.open(); err != nil {
		s.release()
		return nil, fmt.Errorf("open store %s: %w", dir, noSpace(dir, err))
	}
	opened, err := fileClock()
	if err != nil {
		s.release()
		return nil, err
	}
	s.wg.Go(s.maintain)
	select {
	case <-s.counted:
	default:
		s.wg.Go(func() { s.count(opened) })
	}
	return s, nil
}

func (s *Store) open() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	var err error
	if s.root, err = os.Open(s.dir); err != nil {
		return err
	}
	if s.lock, err = lockDir(s.dir); err != nil {
		return err
	}
	if err := checkVersion(s.dir); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(s.dir, partialName)); err != nil {
		return err
	}
	for _, name := range []string{partialName, filepath.Join(objectsName, Hidden)} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	if s.db, err = openKV(filepath.Join(s.dir, "repo.db")); err != nil {
		return err
	}
	return s.recover()
}

// Close syncs and closes the store, and ends a Check. Nothing else may be called after it.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		close(s.closing)
		s.wg.Wait()
		s.checks.wait()
		s.writeRecency()
		s.closeErr = s.sync()
		if s.closeErr == nil {
			s.closeErr = s.markClean()
		}
		if err := s.release(); s.closeErr == nil {
			s.closeErr = err
		}
		if s.closeErr != nil {
			s.closeErr = fmt.Errorf("close store %s: %w", s.dir, s.closeErr)
		}
	})
	return s.closeErr
}

// release gives back what open took, in reverse order.
func (s *Store) release() error {
	var errs []error
	s.partials.Close()
	if s.db != nil {
		errs = append(errs, s.db.close())
	}
	for _, f := range []*os.File{s.lock, s.root} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Path returns the path of an object below ObjectsDir: Hidden/xy/CID, where xy are the two
// characters before the last one of the CID (flatfs calls it next-to-last/2).
func Path(c cid.Cid) string {
	s := c.String()
	return Hidden + "/" + Shard(s) + "/" + s
}

// Shard returns the directory in which the object with this CID string lies, or "" if
// the string is too short to be a CID.
func Shard(c string) string {
	if len(c) < 3 {
		return ""
	}
	return c[len(c)-3 : len(c)-1]
}

// ObjectsDir returns the absolute path of the directory that Path is relative to.
func (s *Store) ObjectsDir() string { return filepath.Join(s.dir, objectsName) }

func (s *Store) objectPath(c cid.Cid) string { return s.ObjectsDir() + "/" + Path(c) }

// Stats says how much is stored. While the store counts after an unclean end, in the
// background, it says less.
func (s *Store) Stats() Stats { return Stats{Objects: s.objects.Load(), Bytes: s.bytes.Load()} }

// HasFile says whether the whole file is here.
func (s *Store) HasFile(f ipfs.File) bool {
	info, err := os.Lstat(s.objectPath(f.Cid))
	return err == nil && info.Size() == f.Size
}

// OpenFile opens the whole file for reading. The error is ipfs.ErrNotFound, wrapped,
// if it is not here; ipfs.ErrFile if f is not of the size that its CID says. A damaged
// object is removed, so that it can be fetched again.
func (s *Store) OpenFile(f ipfs.File) (*os.File, error) {
	file, err := s.openFile(f)
	if err != nil {
		return nil, fmt.Errorf("open file %s: %w", f.Cid, err)
	}
	return file, nil
}

func (s *Store) openFile(f ipfs.File) (*os.File, error) {
	path := s.objectPath(f.Cid)
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, ipfs.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() != f.Size {
		// Who is wrong? Not whoever made the claim, as long as the object is damaged.
		if err = verifyObject(path); isWrong(err) {
			if !isRaw(f.Cid) {
				s.salvage(file, f.Cid, info.Size())
			}
			s.discard(f.Cid, info, err)
			err = ipfs.ErrNotFound
		} else if err == nil {
			err = fmt.Errorf("%w: it has %d bytes, %d are claimed", ipfs.ErrFile, info.Size(), f.Size)
		}
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	s.Touch(f.Cid)
	return file, nil
}

// discard removes an object that is not what its name says. The right one may have taken its
// place since somebody looked at it: that one stays.
func (s *Store) discard(c cid.Cid, damaged os.FileInfo, why error) {
	s.discarding.Lock()
	defer s.discarding.Unlock()
	path := s.objectPath(c)
	now, err := os.Lstat(path)
	if err != nil || !sameContent(now, damaged) {
		return
	}
	err = os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	s.log.Warn("removed a damaged object; it will be fetched again", "cid", c.String(), "size", damaged.Size(), "reason", why, "error", err)
	if err == nil {
		s.account(-1, damaged.Size())
		s.recount.Store(true)
	}
}

// sameContent says whether two looks at a path found the same file, unchanged: the number of
// an inode that has gone is soon that of another.
func sameContent(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Sync makes everything stored before durable.
func (s *Store) Sync(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("sync store %s: %w", s.dir, err)
	}
	if err := s.sync(); err != nil {
		return fmt.Errorf("sync store %s: %w", s.dir, err)
	}
	return nil
}
