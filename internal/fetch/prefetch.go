package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/semaphore"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// window is how many bytes of leaves one Prefetch wants at a time: enough that the next
	// batches can be put together while others are under way. wholeWindow is that of the priority Whole.
	window, wholeWindow = 8 * ipfs.LeafSize, 64 * ipfs.LeafSize
	// leastWeight is what a small leaf counts in the window for: it bounds their number.
	leastWeight = window / 2048
	// quiet is how long nothing more urgent may have been under way before filling goes on
	// at full speed. A container that starts has its processors and its link to itself, also
	// while it computes and reads nothing; one that has run for startup shares them: what it
	// reads still goes first, and waits for one leaf's worth at most.
	quiet        = time.Second
	startup      = 30 * time.Second
	quietRunning = quiet / 10
	// hopeless is how many files in a row cannot be had before Prefetch gives up.
	hopeless = 64
)

// ErrIncomplete says that Prefetch left files that could not be had.
var ErrIncomplete = errors.New("not all files could be had")

// ErrNoRoom says that Prefetch left files that the limit of the store has no room for.
var ErrNoRoom = errors.New("the store has no room for more files that nobody waits for")

// Prefetch gets whole files, in their order, at the given priority: ahead, Profile, Whole or Fill. It
// returns when they are in the store, or none of those that are left can be had: a file
// that fails is left, and when many fail in a row, so are those that follow. The error is
// then ErrIncomplete. It ends with ErrNoRoom before anything would be evicted for it.
func (f *Fetcher) Prefetch(ctx context.Context, files iter.Seq[ipfs.File], p Priority) error {
	return f.prefetch(ctx, func(yield func(Part) bool) {
		for file := range files {
			if !yield(Part{file, AllLeaves}) {
				return
			}
		}
	}, p)
}

// PrefetchParts is Prefetch where of some files only leaves are wanted. Who names leaves knows which
// are read: behind one that was named nothing is read ahead, also before its turn. It goes
// through parts twice.
func (f *Fetcher) PrefetchParts(ctx context.Context, parts iter.Seq[Part], p Priority) error {
	f.name(parts)
	defer f.unname()
	return f.prefetch(ctx, parts, p)
}

func (f *Fetcher) prefetch(ctx context.Context, parts iter.Seq[Part], p Priority) error {
	if p < ahead || p > Fill {
		return fmt.Errorf("prefetch: %d is no priority of it", p)
	}
	f.mu.Lock()
	f.urgent = time.Now() // whoever is to read first has not begun
	f.mu.Unlock()
	most := int64(window)
	if p == Whole {
		most = wholeWindow
	}
	run := &prefetch{Fetcher: f, priority: p, began: time.Now(), window: semaphore.NewWeighted(most), lost: make(map[fileKey]struct{})}
	err := run.all(ctx, parts)
	run.flush(ctx) // what is queued is wanted by the goroutines
	run.wg.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	if n := run.failed.Load(); err == nil && n > 0 {
		err = fmt.Errorf("%d files: %w", n, ErrIncomplete)
	}
	return err
}

// prefetch is one run of Prefetch. One goroutine wants leaves in order, as long as there is
// room in the window; for those that are queued together one waits until they are here. One for each would be
// thousands, whose stacks the garbage collector goes through again and again.
type prefetch struct {
	*Fetcher
	priority Priority
	began    time.Time
	window   *semaphore.Weighted
	wg       sync.WaitGroup

	// Of the goroutine that wants: leaves that were queued since flush.
	queued, queuedBytes int
	awaited             []awaited // the same leaves
	trickle             int       // bytes that may be wanted though it is not quiet

	coming atomic.Int64 // bytes of what is being got and not here
	failed atomic.Int64 // files
	row    atomic.Int64 // files that failed since one did not

	lostMu sync.Mutex
	lost   map[fileKey]struct{} // files that have failed
}

// all begins to get the parts.
func (r *prefetch) all(ctx context.Context, parts iter.Seq[Part]) error {
	for part := range parts {
		if err := context.Cause(ctx); err != nil {
			return err // many files may be here, and be told one by one
		}
		if r.row.Load() >= hopeless {
			return fmt.Errorf("the last %d files could not be had: %w", hopeless, ErrIncomplete)
		}
		if r.has(part) {
			continue
		}
		if ok, err := r.hasRoom(ctx, part.size()); err != nil || !ok {
			return cmp.Or(err, ErrNoRoom)
		}
		if err := r.part(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// hasRoom says whether the store has room for a file besides those that are coming. What has
// come counts twice until its goroutine ran, so a no is asked again when all are here.
func (r *prefetch) hasRoom(ctx context.Context, size int64) (bool, error) {
	// To fill leaves the room that evicting has made; a profile may use it. Neither evicts.
	spare := r.priority >= Whole
	ok, err := r.store.HasRoom(ctx, r.coming.Load()+size, spare)
	if ok || err != nil {
		return ok, err
	}
	r.flush(ctx)
	r.wg.Wait()
	return r.store.HasRoom(ctx, r.coming.Load()+size, spare)
}

// prefetched is a part whose leaves are being waited for.
type prefetched struct {
	*file
	part   Part
	left   atomic.Int64 // goroutines, and the one that wants
	coming atomic.Int64 // its share of prefetch.coming
	err    atomic.Pointer[error]
}

// part begins to get one part. Its error ends the run.
func (r *prefetch) part(ctx context.Context, want Part) error {
	if want.Leaf < AllLeaves || want.Leaf >= want.NumLeaves() {
		return fmt.Errorf("prefetch: %s has no leaf %d", want.Cid, want.Leaf)
	}
	st, object, err := r.open(want.File)
	switch {
	case errors.Is(err, ErrClosed):
		return err
	case err != nil:
		r.fail(want.File, err)
		return nil
	case object != nil:
		return object.Close()
	}
	pf := &prefetched{file: st, part: want}
	pf.left.Add(1)
	r.comes(pf, want.size())
	first, last := 0, st.NumLeaves()-1
	if want.Leaf != AllLeaves {
		first, last = want.Leaf, want.Leaf
	}
	for i := first; i <= last; i++ {
		if err = r.leaf(ctx, pf, i); err != nil {
			pf.err.CompareAndSwap(nil, &err)
			break
		}
	}
	r.leafDone(ctx, pf)
	return err
}

// leaf wants a leaf as soon as there is room for it.
func (r *prefetch) leaf(ctx context.Context, pf *prefetched, i int) error {
	if pf.partial.Have(i) {
		r.comes(pf, -int64(pf.LeafLen(i)))
		return nil
	}
	weight := max(int64(pf.LeafLen(i)), leastWeight)
	if !r.window.TryAcquire(weight) {
		r.flush(ctx) // room comes from what was queued
		if err := r.window.Acquire(ctx, weight); err != nil {
			return err
		}
	}
	err := r.calm(ctx, pf.LeafLen(i))
	if err == nil {
		err = r.pace(ctx, pf.Leaf(i), pf.LeafLen(i))
	}
	if err != nil {
		r.window.Release(weight)
		return err
	}
	start := time.Now()
	r.mu.Lock()
	closed := r.closed
	var w *want
	var joined bool
	if !closed {
		w, joined = r.wantLocked(pf.file, i, r.priority)
	}
	r.mu.Unlock()
	if w == nil {
		r.window.Release(weight)
		if closed {
			return ErrClosed
		}
		r.comes(pf, -int64(pf.LeafLen(i)))
		return nil
	}
	pf.left.Add(1)
	r.awaited = append(r.awaited, awaited{pf, attempt{w, r.priority, i, joined, start}, weight})
	r.queued++
	r.queuedBytes += pf.LeafLen(i)
	if most := limits[r.priority]; r.queued >= most.leaves || r.queuedBytes >= most.bytes {
		r.flush(ctx)
	}
	return nil
}

// awaited is a leaf that was wanted.
type awaited struct {
	of *prefetched
	attempt
	weight int64 // in the window
}

// await waits for a leaf.
func (r *prefetch) await(ctx context.Context, a awaited) {
	if err := r.obtain(ctx, a.of.file, a.attempt, nil); err != nil {
		a.of.err.CompareAndSwap(nil, &err)
	}
	r.comes(a.of, -int64(a.of.LeafLen(a.leaf)))
	r.window.Release(a.weight)
	r.leafDone(ctx, a.of)
}

// flush lets what was queued go. Until then it gathers, so that batches are large.
func (r *prefetch) flush(ctx context.Context) {
	if list := r.awaited; len(list) > 0 {
		r.wg.Go(func() {
			for _, a := range list {
				select {
				case <-a.done:
				case <-ctx.Done():
				}
				if ctx.Err() == nil && a.joined && a.err != nil { // it is tried once more, and others do not wait for that
					r.wg.Go(func() { r.await(ctx, a) })
				} else {
					r.await(ctx, a)
				}
			}
		})
	}
	r.queued, r.queuedBytes, r.awaited = 0, 0, nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dispatchLocked(ctx)
}

// calm waits until it is quiet, but lets a leaf's worth of bytes pass for each time that it
// waited in vain: somebody may read for ever.
func (r *prefetch) calm(ctx context.Context, size int) error {
	for r.priority == Fill {
		r.mu.Lock()
		age := time.Since(r.began)
		wait, closed := quietAfter(age)-time.Since(r.urgent), r.closed
		r.mu.Unlock()
		if wait <= 0 && age < startup && r.busy() {
			wait = quiet
		}
		if wait <= 0 || closed {
			return nil
		}
		if r.trickle >= size {
			r.trickle -= size
			return nil
		}
		r.flush(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		r.trickle = ipfs.LeafSize
	}
	return nil
}

// quietAfter is how long it has to be quiet for a run that began so long ago.
func quietAfter(age time.Duration) time.Duration {
	if age < startup {
		return quiet
	}
	return quietRunning
}

// pace waits as long as the limit of bytes a second takes. It does so before the leaf is
// wanted: what is demanded must not meet a want that waits.
func (r *prefetch) pace(ctx context.Context, c cid.Cid, size int) error {
	if r.priority != Fill || r.filling == nil {
		return nil
	}
	if here, err := r.store.Has(ctx, c); here && err == nil {
		return nil
	}
	if r.filling.AllowN(time.Now(), size) {
		return nil
	}
	r.flush(ctx)
	return r.filling.WaitN(ctx, size)
}

// leafDone ends the part with its last leaf.
func (r *prefetch) leafDone(ctx context.Context, pf *prefetched) {
	if pf.left.Add(-1) > 0 {
		return
	}
	defer func() { r.comes(pf, -pf.coming.Load()) }()
	whole := pf.part.Leaf == AllLeaves || pf.partial.Complete()
	var err error
	if failed := pf.err.Load(); failed != nil {
		err = *failed
	} else if whole {
		err = r.finish(pf.file)
	}
	if err != nil {
		r.abandon(pf.file)
		if ctx.Err() == nil && !errors.Is(err, ErrClosed) {
			r.fail(pf.File, err)
		}
		return
	}
	if whole {
		r.prefetched(pf.file, r.priority)
	}
	r.done(pf.file)
	r.row.Store(0)
}

// comes counts bytes that come, or have come.
func (r *prefetch) comes(pf *prefetched, bytes int64) {
	pf.coming.Add(bytes)
	r.coming.Add(bytes)
}

// fail counts a file that is left, once, and tells of the first.
func (r *prefetch) fail(file ipfs.File, err error) {
	key := fileKey{file.Cid, file.Size}
	r.lostMu.Lock()
	_, again := r.lost[key]
	r.lost[key] = struct{}{}
	r.lostMu.Unlock()
	if again {
		return
	}
	r.row.Add(1)
	if r.failed.Add(1) > 1 {
		r.log.Debug("cannot get a file ahead of need", "cid", file.Cid.String(), "error", err)
		return
	}
	r.log.Warn("cannot get a file ahead of need; it is fetched when it is read, and more such files are told at debug level", "cid", file.Cid.String(), "error", err)
}

// abandon gives back what open returned. A file that nobody else uses, and of which there
// is nothing, is forgotten: it may be one of many that nobody has.
func (f *Fetcher) abandon(st *file) {
	f.mu.Lock()
	defer f.mu.Unlock()
	st.users--
	if st.users > 0 || f.files[st.key()] != st {
		return
	}
	for i := range st.NumLeaves() {
		if f.comingLocked(st, i) {
			return
		}
	}
	delete(f.files, st.key())
}
