// Package fetch gets files into the object store: it decides what to get next, and gets
// nothing twice.
//
// The unit is the leaf. A read names the leaves it needs; each becomes a want, of which
// there is one for a leaf at any time, whoever asks for it and for however many files. A
// want belongs to the content: a reader that gives up leaves it running for the others
// and for the next read. Wants wait in queues: those that somebody waits for, before those
// that are read ahead, before those that Prefetch has at the priorities Profile, Whole and Fill.
// They leave them in batches, of which a bounded number is under way. A batch looks in the
// store first and asks the source for the rest. What is demanded may be in a queue of
// less urgency already: then it moves. To fill, Prefetch waits until nothing more urgent has
// been under way for a second and the processors are not all in use, and after half a minute for
// a tenth of one, but for a trickle.
//
// What is read ahead: of a file of few leaves, all of it, right behind what was asked
// for. Of a larger one, twice as many leaves as lie without gap before the one that is
// read, up to maxAhead: so the window grows with sequential reads, of any number of
// readers, and stays shut for random ones. Behind a leaf that PrefetchParts was given,
// nothing is.
//
// Where small reads wait for long, the small files in the directory of the one that is read are
// fetched with it (near.go).
//
// A leaf that arrives is verified as it is written into the partial file, and reads are
// served from there until the last leaf is in; then the file becomes an object.
//
// A read that has waited for a second has all interrupted that nobody waits for, on a slow link
// as elsewhere: what it waits for may be under way among much else. What was interrupted is
// queued again.
//
// A read waits for Timeout at most, and an attempt as long as anything comes. A read fails
// with what the source said when an attempt that began no earlier than the read has
// failed, so a reader that joins a doomed attempt at its end gets one of its own; the next
// read tries afresh.
package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/time/rate"

	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	defaultTimeout = 30 * time.Second
	// grace is how much longer than the attempt its readers wait, for the source's own
	// words on what went wrong.
	grace = time.Second
	// patience is how long a read waits beside what nobody waits for.
	patience = time.Second
	// SmallFile is the number of leaves up to which a file is fetched whole.
	SmallFile = 8
	// maxAhead bounds the leaves read ahead of a reader.
	maxAhead = 32
	// evictedTries is how often what one read needs is fetched, if it is evicted as soon as it
	// is here.
	evictedTries = 4
)

var (
	// ErrClosed says that the Fetcher was closed.
	ErrClosed = errors.New("fetching was stopped")
	// ErrTimeout says that a leaf did not come in time.
	ErrTimeout = errors.New("timed out")
)

// A Source delivers verified blocks, as ipfs.Fetcher does.
type Source interface {
	Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error
}

// Options configure a Fetcher.
type Options struct {
	Timeout time.Duration // how long a read may wait for what it needs; default 30 s
	// FillRate is how many bytes a second are asked for at the priority Fill; 0 is no limit.
	FillRate int64
	// Arrived is told of leaves that are here now, in the store or for Leaf; nil is not. It must be
	// quick, and call nothing of the Fetcher.
	Arrived func(leaves []cid.Cid)
	// Opens says that Opened will be called, so that it is worth knowing what was prefetched.
	Opens bool
	// Busy says that others want all the processors of this computer; nil is never. To fill
	// waits for that, too, in the first half minute.
	Busy   func() bool
	Logger *slog.Logger // default: discard
}

// Stats counts since New.
type Stats struct {
	Files      int64   // files completed
	Bytes      int64   // bytes of leaves that came from the source
	LocalBytes int64   // bytes of leaves that were in the store already
	InFlight   int64   // leaves wanted that are not here
	Hits       int64   // reads answered at once, from this disk
	Misses     int64   // reads that had to wait
	Failures   int64   // reads that failed
	Waits      Latency // of Misses
	Profile    Prefetched
	Fill       Prefetched
}

// A Fetcher gets files into a store. All methods may be called concurrently.
type Fetcher struct {
	store   *objects.Store
	src     Source
	timeout time.Duration
	log     *slog.Logger
	filling *rate.Limiter // nil: no limit
	arrived func([]cid.Cid)
	opens   bool
	busy    func() bool
	// Keys of the leaves that everybody knows: of an empty file and of a hole.
	emptyLeaf, zeroLeaf string

	mu     sync.Mutex // guards what follows
	closed bool
	files  map[fileKey]*file
	held   map[string]place    // leaves that lie in incomplete files
	named  map[fileKey]leafSet // leaves of files that are not here
	sched  scheduler
	urgent time.Time // when a batch was under way last that is not to fill
	stats  Stats
	unread map[sum]unread // prefetched files that nobody has opened yet

	neighbours func(ipfs.File) iter.Seq[ipfs.File] // nil: there are none
	distance   distance
	near       int // reads whose neighbours are being got

	origins
	wg sync.WaitGroup // batches and commits; Add only with mu held and closed false
}

// fileKey names a file. The size belongs to it, since the CID of a file of one leaf does
// not prove its size: a false claim must not be in the way of the true one.
type fileKey struct {
	cid  cid.Cid
	size int64
}

// file is an incomplete file.
type file struct {
	ipfs.File
	partial *objects.Partial
	// Guarded by Fetcher.mu:
	failing   bool    // the last attempt to get a leaf of it failed
	finishing bool    // a goroutine makes it an object
	counted   bool    // in Prefetched, or not to be: somebody has waited for it
	users     int     // of open that have not called done
	read      leafSet // leaves that somebody wanted to read; of large files only
}

func (st *file) key() fileKey { return fileKey{st.Cid, st.Size} }

// place is where a leaf belongs.
type place struct {
	file *file
	leaf int
}

// New returns a Fetcher that fills store from src.
func New(store *objects.Store, src Source, opts Options) *Fetcher {
	if opts.Timeout <= 0 {
		opts.Timeout = defaultTimeout
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Arrived == nil {
		opts.Arrived = func([]cid.Cid) {}
	}
	if opts.Busy == nil {
		opts.Busy = func() bool { return false }
	}
	f := &Fetcher{
		store: store, src: src, timeout: opts.Timeout, log: opts.Logger, arrived: opts.Arrived, opens: opts.Opens, busy: opts.Busy, unread: make(map[sum]unread),
		files: make(map[fileKey]*file), named: make(map[fileKey]leafSet), held: make(map[string]place), sched: newScheduler(), origins: newOrigins(),
	}
	if opts.FillRate > 0 {
		f.filling = rate.NewLimiter(rate.Limit(opts.FillRate), ipfs.LeafSize)
	}
	f.emptyLeaf, f.zeroLeaf = rawKey(nil), rawKey(make([]byte, ipfs.LeafSize))
	return f
}

func rawKey(data []byte) string {
	digest := sha256.Sum256(data)
	return ipfs.RawCid(string(digest[:])).KeyString()
}

// Close stops all fetching, waits for it, and gives up what is incomplete.
func (f *Fetcher) Close() error {
	f.mu.Lock()
	f.closed = true
	for _, w := range f.sched.stop() {
		f.endLocked(w, ErrClosed)
	}
	f.mu.Unlock()
	f.wg.Wait()
	var errs []error
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, file := range f.files {
		errs = append(errs, file.partial.Abort())
		delete(f.files, key)
	}
	return errors.Join(errs...)
}

// Stats returns the counters.
func (f *Fetcher) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.InFlight = int64(len(f.sched.wants))
	return s
}

// ReadAt reads from a file as io.ReaderAt does, and fetches what it needs. It returns
// early when ctx ends; the fetch goes on.
func (f *Fetcher) ReadAt(ctx context.Context, file ipfs.File, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read %s: negative offset %d", file.Cid, off)
	}
	if off >= file.Size || len(p) == 0 {
		return 0, io.EOF
	}
	for range evictedTries {
		n, err := f.readAt(ctx, file, p, off)
		if !errors.Is(err, objects.ErrEvicted) && !errors.Is(err, objects.ErrMissing) {
			return n, err
		}
	}
	return 0, fmt.Errorf("read %s: %w again and again: the limit of the store is too small", file.Cid, objects.ErrEvicted)
}

func (f *Fetcher) readAt(ctx context.Context, file ipfs.File, p []byte, off int64) (int, error) {
	st, object, err := f.open(file)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file.Cid, err)
	}
	if object != nil {
		defer object.Close()
		f.count(func(s *Stats) { s.Hits++ })
		return object.ReadAt(p, off)
	}
	defer f.done(st)
	each := st.Layout.LeafSize() // whatever file says: that of st is proven
	first := int(off / each)
	last := int((min(off+int64(len(p)), file.Size) - 1) / each)
	if err := f.demand(ctx, st, first, last); err != nil {
		f.count(func(s *Stats) { s.Failures++ })
		return 0, fmt.Errorf("read %s: %w", file.Cid, err)
	}
	return st.partial.ReadAt(p, off)
}

// Ensure returns when the whole file is in the store. It fetches behind what readers
// wait for.
func (f *Fetcher) Ensure(ctx context.Context, file ipfs.File) error {
	st, object, err := f.open(file)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", file.Cid, err)
	}
	if object != nil {
		return object.Close()
	}
	defer f.done(st)
	for i := range file.NumLeaves() {
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			return ErrClosed
		}
		w, joined := f.wantLocked(st, i, ahead)
		for j := i + 1; j < min(i+maxAhead, file.NumLeaves()); j++ {
			f.wantLocked(st, j, ahead)
		}
		f.dispatchLocked(ctx)
		f.mu.Unlock()
		if err := f.obtain(ctx, st, attempt{w, ahead, i, joined, time.Now()}, nil); err != nil {
			return fmt.Errorf("fetch %s: %w", file.Cid, err)
		}
	}
	return f.finish(st)
}

// open returns the file in the store, or else its incomplete state, which the caller gives
// back with done.
func (f *Fetcher) open(want ipfs.File) (*file, *os.File, error) {
	key := fileKey{want.Cid, want.Size}
	f.mu.Lock()
	st, closed := f.files[key], f.closed
	if st != nil {
		st.users++
	}
	f.mu.Unlock()
	if closed {
		return nil, nil, ErrClosed
	}
	if st != nil {
		return st, nil, nil
	}
	object, err := f.store.OpenFile(want)
	if !errors.Is(err, ipfs.ErrNotFound) {
		return nil, object, err
	}
	partial, err := f.store.Create(want) // proves that the leaves are the file's
	if err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, nil, ErrClosed
	}
	if st := f.files[key]; st != nil {
		st.users++
		return st, nil, nil
	}
	if object, err := f.store.OpenFile(want); err == nil { // finished meanwhile
		return nil, object, nil
	}
	st = &file{File: want, partial: partial, users: 1}
	f.files[key] = st
	return st, nil, nil
}

// done gives back what open returned.
func (f *Fetcher) done(st *file) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st.users--
}

// finish makes a file whose leaves are all here an object. It may be called again.
func (f *Fetcher) finish(st *file) error {
	if err := st.partial.Commit(); err != nil {
		return err
	}
	if st.NumLeaves() == 1 {
		f.arrived([]cid.Cid{st.Cid}) // of others, each leaf was told
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files[st.key()] != st {
		return nil // another was first
	}
	delete(f.files, st.key())
	delete(f.named, st.key())
	f.stats.Files++
	for i := range st.NumLeaves() {
		if k := st.Leaf(i).KeyString(); f.held[k].file == st {
			delete(f.held, k)
		}
	}
	return nil
}

// finishLocked finishes a complete file behind its readers, who are served from its parts.
func (f *Fetcher) finishLocked(st *file) {
	if f.closed || st.finishing || !st.partial.Complete() {
		return
	}
	st.finishing = true
	f.wg.Go(func() {
		if err := f.finish(st); err != nil {
			f.log.Warn("cannot finish a file; trying again when it is read", "cid", st.Cid.String(), "error", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		st.finishing = false
	})
}

func (f *Fetcher) count(fn func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(&f.stats)
}
