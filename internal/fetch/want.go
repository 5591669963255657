package fetch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// want is the one attempt to get a leaf that is queued or under way.
type want struct {
	cid      cid.Cid
	size     int // as claimed by whoever wanted it first: for the account only
	priority Priority
	batch    *batch  // that it is under way in; guarded by Fetcher.mu
	places   []place // where to write it; guarded by Fetcher.mu

	done chan struct{} // closed when it was written or could not be had
	err  error         // set before done is closed
}

// demand returns when leaves first to last of a file are here.
func (f *Fetcher) demand(ctx context.Context, st *file, first, last int) error {
	start := time.Now()
	attempts, own := make([]attempt, 0, last-first+1), true
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return ErrClosed
	}
	st.counted = true
	for i := first; i <= last; i++ {
		st.noteRead(i)
		if w, joined := f.wantLocked(st, i, demanded); w != nil {
			attempts = append(attempts, attempt{w, demanded, i, joined, start})
			own = own && !joined
		}
	}
	if !f.namedLocked(st, first, last) {
		f.aheadLocked(st, first, last)
	}
	if len(attempts) == 0 {
		f.stats.Hits++
		f.finishLocked(st)
	} else {
		f.stats.Misses++
		f.nearLocked(ctx, st.File)
	}
	f.dispatchLocked(ctx)
	f.mu.Unlock()
	if len(attempts) == 0 {
		return nil
	}
	defer func() { f.count(func(s *Stats) { s.Waits.add(time.Since(start)) }) }()
	timer := time.NewTimer(f.timeout + grace)
	defer timer.Stop()
	hurried := f.hurryAfter(ctx, attempts)
	defer hurried()
	for _, a := range attempts {
		if err := f.obtain(ctx, st, a, timer.C); err != nil {
			return err
		}
	}
	if own && st.Size <= smallRead {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.distance.add(time.Since(start))
	}
	return nil
}

// hurryAfter makes the rest of what a read waits for go before all else when it has waited for
// some time: it may have joined what is under way with much beside it that nobody waits for.
// That lasts for half of the time that the read has, since nobody may have what it waits for.
// done must be called when the read is.
func (f *Fetcher) hurryAfter(ctx context.Context, attempts []attempt) (done func()) {
	h := &hurry{Fetcher: f, attempts: attempts}
	f.mu.Lock()
	defer f.mu.Unlock()
	h.timer = time.AfterFunc(min(patience, f.timeout/8), func() { h.next(ctx) })
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		h.timer.Stop()
		h.endLocked(ctx)
	}
}

// hurry is the end of a read's patience. Fetcher.mu guards it.
type hurry struct {
	*Fetcher
	attempts  []attempt
	timer     *time.Timer
	on, ended bool
}

// next begins the hurry, or ends it.
func (h *hurry) next(ctx context.Context) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on || h.ended || h.closed {
		h.endLocked(ctx)
		return
	}
	h.on = true
	h.timer.Reset(h.timeout / 2)
	h.sched.hurry++
	waiting := make([]*want, 0, len(h.attempts))
	for _, a := range h.attempts {
		if h.sched.wants[a.cid.KeyString()] == a.want {
			waiting = append(waiting, a.want)
		}
	}
	h.sched.interrupt(waiting, demanded)
	h.dispatchLocked(ctx)
}

func (h *hurry) endLocked(ctx context.Context) {
	if h.on {
		h.on = false
		h.sched.hurry--
		h.dispatchLocked(ctx)
	}
	h.ended = true
}

// attempt is the use of a want by a reader. It was joined if it had been there before.
type attempt struct {
	*want
	as     Priority // of the reader: the want that it joined may be under way at another
	leaf   int
	joined bool
	since  time.Time // when the read began
}

// obtain waits until a leaf is here. If the attempt it joined fails, it makes one more.
// No timeout means as long as that takes.
func (f *Fetcher) obtain(ctx context.Context, st *file, a attempt, timeout <-chan time.Time) error {
	var err error
	for a.want != nil {
		select {
		case <-a.done:
			if a.err == nil || st.partial.Have(a.leaf) {
				return nil
			}
			err = a.err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timeout:
			a.joined, err = false, errors.Join(ErrTimeout, err)
		}
		if !a.joined {
			waited := time.Since(a.since).Round(time.Millisecond)
			return fmt.Errorf("leaf %d of %d (%s) could not be had, waited %s: %w", a.leaf, st.NumLeaves(), st.Leaf(a.leaf), waited, err)
		}
		f.mu.Lock()
		if f.closed {
			f.mu.Unlock()
			return ErrClosed
		}
		a.want, _ = f.wantLocked(st, a.leaf, a.as)
		a.joined = false
		f.dispatchLocked(ctx)
		f.mu.Unlock()
	}
	return nil
}

// wantLocked returns the want for leaf i of a file, or nil if the leaf is here, and
// whether there was one.
func (f *Fetcher) wantLocked(st *file, i int, p Priority) (w *want, joined bool) {
	if st.partial.Have(i) {
		return nil, false
	}
	key := st.Leaf(i).KeyString()
	w, joined = f.sched.wants[key]
	if !joined {
		w = &want{cid: st.Leaf(i), size: st.LeafLen(i), priority: p, done: make(chan struct{})}
		f.sched.push(key, w)
	} else {
		f.sched.promote(w, p)
	}
	for _, at := range w.places {
		if at.file == st && at.leaf == i {
			return w, joined
		}
	}
	w.places = append(w.places, place{st, i})
	return w, joined
}

// aheadLocked wants what is likely to be read after leaves first to last.
func (f *Fetcher) aheadLocked(st *file, first, last int) {
	if st.failing {
		return // what is demanded finds out when that is over
	}
	n := st.NumLeaves()
	if n <= SmallFile {
		for i := range n {
			f.wantLocked(st, i, ahead)
		}
		return
	}
	run := 0 // of leaves before first that are here or coming
	if first == 0 {
		run = 1
	}
	for i := first - 1; i >= 0 && run < maxAhead/2 && f.comingLocked(st, i); i-- {
		run++
	}
	for i := last + 1; i < n && i <= last+2*run; i++ {
		f.wantLocked(st, i, ahead)
	}
}

func (f *Fetcher) comingLocked(st *file, i int) bool {
	return st.partial.Have(i) || f.sched.wants[st.Leaf(i).KeyString()] != nil
}

// run gets the leaves of a batch: what the store or another file has, and the rest from
// the source.
func (f *Fetcher) run(ctx *idleContext, b *batch) {
	missing := make(map[string]*want, len(b.wants))
	cids := make([]cid.Cid, 0, len(b.wants))
	for _, w := range b.wants {
		if data := f.local(ctx, w); data != nil {
			f.deliver(ctx, w, ipfs.Block{Cid: w.cid, Data: data})
			f.count(func(s *Stats) { s.LocalBytes += int64(len(data)) })
			continue
		}
		missing[w.cid.KeyString()] = w
		cids = append(cids, w.cid)
	}
	var err error
	if len(cids) > 0 {
		size := 0
		for _, w := range missing {
			size += w.size
		}
		asking := ipfs.WithBlockSize(ipfs.WithRank(ctx, b.priority.rank()), int64(size/len(cids)))
		err = f.src.Fetch(asking, cids, func(block ipfs.Block) error {
			key := block.Cid.KeyString()
			w, ok := missing[key]
			if !ok {
				return nil
			}
			delete(missing, key)
			ctx.extend()
			f.deliver(ctx, w, block)
			f.count(func(s *Stats) {
				s.Bytes += int64(len(block.Data))
				f.origins.add(block.Cid, block.From)
			})
			return nil
		})
	}
	if err == nil {
		err = ipfs.ErrNotFound
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		err = ErrClosed
	}
	for _, w := range missing {
		if b.interrupted && !f.closed {
			f.sched.again(w)
			continue
		}
		f.endLocked(w, err)
	}
	f.sched.finished(b)
	f.noteLocked(b)
	f.dispatchLocked(ctx)
}

// local returns a leaf that need not be fetched, or nil.
func (f *Fetcher) local(ctx context.Context, w *want) []byte {
	key := w.cid.KeyString()
	switch key {
	case f.emptyLeaf:
		return []byte{}
	case f.zeroLeaf:
		return make([]byte, ipfs.LeafSize)
	}
	f.mu.Lock()
	at, ok := f.held[key]
	f.mu.Unlock()
	if ok {
		data := make([]byte, at.file.LeafLen(at.leaf))
		if _, err := at.file.partial.ReadAt(data, int64(at.leaf)*at.file.Layout.LeafSize()); err == nil {
			return data
		}
	}
	data, err := f.store.Get(ctx, w.cid)
	if err != nil && !errors.Is(err, ipfs.ErrNotFound) {
		f.log.Warn("cannot read a leaf from the store; asking peers", "cid", w.cid.String(), "error", err)
	}
	return data
}

// deliver writes a leaf into every file that wants it, also those that come to want it
// meanwhile, and then wakes whoever waits.
func (f *Fetcher) deliver(ctx context.Context, w *want, leaf ipfs.Block) {
	var failed error
	for {
		f.mu.Lock()
		places := w.places
		w.places = nil
		if len(places) == 0 {
			f.endLocked(w, failed)
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		for _, at := range places {
			if err := f.write(ctx, at, leaf); err != nil {
				failed = err
			}
		}
	}
}

func (f *Fetcher) write(ctx context.Context, at place, leaf ipfs.Block) error {
	if err := at.file.partial.WriteLeaf(at.leaf, leaf); err != nil {
		if errors.Is(err, ipfs.ErrFile) && at.file.NumLeaves() == 1 {
			err = errors.Join(err, f.refute(ctx, at.file, leaf))
		}
		f.log.Warn("cannot store a leaf", "cid", at.file.Cid.String(), "leaf", at.leaf, "error", err)
		return err
	}
	if at.file.NumLeaves() == 1 {
		return f.finish(at.file)
	}
	c := at.file.Leaf(at.leaf)
	f.mu.Lock()
	f.held[c.KeyString()] = at
	at.file.failing = false
	f.finishLocked(at.file)
	f.mu.Unlock()
	f.arrived([]cid.Cid{c})
	return nil
}

// refute keeps the content of a file that is of another size than was claimed. So it is
// fetched once, and the store knows from now on which claim is true. It goes when its layer does.
func (f *Fetcher) refute(ctx context.Context, st *file, content ipfs.Block) error {
	f.mu.Lock()
	delete(f.files, st.key())
	f.mu.Unlock()
	return f.store.Cache(ctx, content)
}

// endLocked ends a want: nil says that its leaf was written.
func (f *Fetcher) endLocked(w *want, err error) {
	w.err = err
	if err != nil {
		for _, at := range w.places {
			at.file.failing = true
		}
	}
	delete(f.sched.wants, w.cid.KeyString())
	close(w.done)
}
