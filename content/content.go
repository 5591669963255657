// Package content is containerd's content store whose blobs are files of an IPFS node: each is cut into chunks (ipfs.LayoutBlob), and kept
// under its digest, which is that of its bytes, as ever. So peers have chunks of each other, and what layers of files have is in the
// same repository.
//
//	DIR/blobs/ALG/HEX        what is known of a blob that was ingested: its root, size, times and labels (JSON)
//	DIR/ingest/HASH/data     bytes of an ingest, by the hash of its ref
//	DIR/ingest/HASH/state    its ref, total and times (JSON)
//	DIR/bound/ALG/HEX        what the manifest with this digest says of its blobs (JSON)
//	DIR/id                   names the pins of this store, since others may pin on the same node
//	DIR/lock                 one process at a time
//
// Ingests. Bytes go to the file of the ingest, and are hashed as they come, for the digest and for the chunks. Commit gives the file to the
// node, which keeps it under a pin, and then writes the record: in this order, and each durable, so that a blob is there as a whole or not at
// all. Pins without a record, which a crash leaves, are removed by Open. An ingest goes on where it was after whatever ended
// the process: what is in the file is hashed again.
//
// Bound blobs. A manifest whose descriptors carry a root (mediatype.AnnotationBlob) binds digests to roots. Such blobs are had before a byte of
// them is here; reads fetch what they need, verified block by block. Whoever is told that one is here is owed it until he deletes it, whatever
// becomes of the manifest: so it gets a record then, which says that nobody has seen its bytes. That the blob is the one of that digest only they can tell: they are hashed as
// they are read, and the last of them is given out only if all are right. Then the blob is pinned as one that was ingested. A root that is wrong is not believed again, and the next is
// taken that a manifest names.
//
// Roots as digests. The digest of a blob of several chunks is also that of its root, as the images of 2019 had it ("convert --root-digests"): a digest that nothing else is known of is looked for among the
// roots that are here. What is read by it is proven by its blocks, and by no sum of its bytes.
//
// Concurrency. All methods may be called by any number of goroutines; one writer has an ingest at a time. Striped locks order what is done to one
// digest; of one blob that is bound, one reader at a time hashes what it has read. Locks are taken in this order: a writer's, a digest's, the Store's.
package content

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
)

// A Node keeps blobs. Errors are those of package ipfs.
type Node interface {
	// Keep makes the file at path, which lies in the Store's directory and is f to the last byte, one of the node's, and keeps it under a pin of
	// this name. Both are durable when Keep returns; the file may be gone from path, also after an error.
	Keep(ctx context.Context, path string, f ipfs.File, name string) error
	// KeepFetched keeps a file of which all was fetched.
	KeepFetched(ctx context.Context, f ipfs.File, name string) error
	// Root returns the root of LayoutBlob with this hash, and the size of its file, if the root is here. The error is ipfs.ErrNotFound if none is.
	Root(ctx context.Context, d digest.Digest) (root cid.Cid, size int64, err error)
	// KeepRoot keeps a file under a pin of this name, as far as it is here.
	KeepRoot(ctx context.Context, f ipfs.File, name string) error
	// Drop removes a pin, and what nothing else needs of it, soon. If the process ends before, Pins has it still.
	Drop(pin ipfs.Pin)
	// MakeRoom removes what can be done without, for somebody who found the disk full, and says whether it is worth to try again.
	MakeRoom() bool
	// Pins lists the pins.
	Pins(ctx context.Context, name string) ([]ipfs.Pin, error)
	// Open opens a file that is here; only Cid and Size are needed. The error is ipfs.ErrNotFound if it is not.
	Open(f ipfs.File) (*os.File, error)
	// Load finds the leaves of a file of LayoutBlob.
	Load(ctx context.Context, root cid.Cid, size int64) (ipfs.File, error)
	// ReadAt reads as io.ReaderAt does, and fetches what is not here.
	ReadAt(ctx context.Context, f ipfs.File, p []byte, off int64) (int, error)
}

// pinPrefix begins the names of the pins of blobs: the store's ID and the digest follow.
const pinPrefix = "ipcs-blob "

// pinsTime is how long Open waits for the pins: a Kubo need not run by then.
const pinsTime = 2 * time.Second

// Options configure a Store.
type Options struct {
	Logger *slog.Logger // default: discard
	// Committed is told of each blob that was committed. It must be quick; nil is told nothing.
	Committed func(digest.Digest)
}

// A Store is containerd's content.Store.
type Store struct {
	dir    string
	node   Node
	log    *slog.Logger
	id     string
	lock   *os.File
	stripe [64]sync.Mutex // of digests

	committed func(digest.Digest) // may be nil

	mu     sync.Mutex // guards what follows
	active map[string]*writer
	bound  map[digest.Digest][]*candidate
	lazy   map[digest.Digest]*lazy // blobs that are read from elsewhere
	known  known
}

var _ ctd.Store = (*Store)(nil)

// Open opens the store in dir, and makes it if there is none. Two processes cannot have it open.
func Open(ctx context.Context, dir string, node Node, opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{dir: dir, node: node, log: opts.Logger, active: map[string]*writer{}, bound: map[digest.Digest][]*candidate{}, lazy: map[digest.Digest]*lazy{}, known: newKnown(), committed: opts.Committed}
	err := s.open(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open content store %s: %w", dir, err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	var err error
	for _, name := range []string{blobsName, boundName} {
		for _, algorithm := range []digest.Algorithm{digest.SHA256, digest.SHA384, digest.SHA512} {
			err = errors.Join(err, os.MkdirAll(filepath.Join(s.dir, name, algorithm.String()), 0o700))
		}
		err = errors.Join(err, syncDir(filepath.Join(s.dir, name)))
	}
	if err = errors.Join(err, os.MkdirAll(filepath.Join(s.dir, ingestName), 0o700), syncDir(s.dir)); err != nil {
		return err
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process has it open: %w", err)
	}
	if err := errors.Join(s.removeUnfinished(), s.readID()); err != nil {
		return err
	}
	if err := s.dropUnrecorded(ctx); err != nil {
		s.log.Warn("what a crash may have left of blobs is not removed; trying again at the next start", "err", err)
	}
	return errors.Join(s.loadBound(), s.loadKnown())
}

// Close ends the use of the store. Nothing else may be called after it; ingests that are under way go on when it is opened again.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// readID reads the store's ID, and makes one for a new store.
func (s *Store) readID() error {
	path := filepath.Join(s.dir, "id")
	err := readJSON(path, &s.id)
	if errors.Is(err, fs.ErrNotExist) {
		s.id = rand.Text()
		err = writeJSON(path, s.id)
	}
	return err
}

func (s *Store) pinName(d digest.Digest) string { return pinPrefix + s.id + " " + d.String() }

// dropUnrecorded removes the pins of blobs that a crash came between.
func (s *Store) dropUnrecorded(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pinsTime)
	defer cancel()
	pins, err := s.node.Pins(ctx, "")
	if err != nil {
		return err
	}
	for _, pin := range pins {
		d, ours := strings.CutPrefix(pin.Name, pinPrefix+s.id+" ")
		if !ours {
			continue
		}
		r, err := s.record(digest.Digest(d))
		if err == nil && !r.Unseen {
			continue
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		s.log.Info("a blob was not committed, or not deleted as a whole, before the process ended; it is removed", "digest", d)
		s.node.Drop(pin)
	}
	return nil
}

// lockDigest orders what is done to one digest.
func (s *Store) lockDigest(d digest.Digest) (unlock func()) {
	h := fnv.New32a()
	_, _ = io.WriteString(h, string(d)) // never fails
	m := &s.stripe[h.Sum32()%uint32(len(s.stripe))]
	m.Lock()
	return m.Unlock
}

// Info implements content.InfoProvider. Who is told of a blob that a manifest binds is owed it from now on.
func (s *Store) Info(ctx context.Context, d digest.Digest) (ctd.Info, error) {
	r, err := s.told(ctx, d)
	if err != nil {
		return ctd.Info{}, err
	}
	return r.info(d), nil
}

// told returns the record of a blob, and makes one if there is none and manifests say which file it is, or if the digest is that of a root that is here.
func (s *Store) told(ctx context.Context, d digest.Digest) (record, error) {
	r, err := s.record(d)
	if !errdefs.IsNotFound(err) {
		return r, err
	}
	defer s.lockDigest(d)()
	if r, err = s.record(d); !errdefs.IsNotFound(err) {
		return r, err
	}
	if c := s.candidate(d); c != nil {
		r = record{Root: c.root.String(), Size: c.size, Created: c.since, Updated: c.since, Unseen: true}
		return r, s.setRecord(d, r)
	}
	root, size, rerr := s.node.Root(ctx, d)
	if errors.Is(rerr, ipfs.ErrNotFound) {
		return r, err
	}
	if rerr != nil {
		return r, fmt.Errorf("content %s: %w", d, rerr)
	}
	now := time.Now()
	r = record{Root: root.String(), Size: size, Created: now, Updated: now, DAG: true}
	if err := s.node.KeepRoot(ctx, ipfs.File{Cid: root, Size: size, Layout: ipfs.LayoutBlob}, s.pinName(d)); err != nil {
		return r, fmt.Errorf("content %s: %w", d, err)
	}
	return r, s.setRecord(d, r)
}

// Delete implements content.Manager. The node's space comes back, but for what other blobs, files and pins need.
func (s *Store) Delete(_ context.Context, d digest.Digest) error {
	defer s.lockDigest(d)()
	r, err := s.record(d)
	if err != nil {
		return err
	}
	root, err := cid.Decode(r.Root)
	if err == nil {
		err = s.unbind(d)
	}
	if err == nil {
		err = removeFile(s.recordPath(d))
	}
	if err != nil {
		return fmt.Errorf("delete content %s: %w", d, err)
	}
	s.mu.Lock()
	delete(s.lazy, d)
	s.mu.Unlock()
	s.node.Drop(ipfs.Pin{Root: root, Name: s.pinName(d)})
	s.note(d, nil) // now that the node knows that it goes
	return nil
}
