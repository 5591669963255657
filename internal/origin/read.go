package origin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/opencontainers/go-digest"
)

// Pauses before a seed is tried again that could not be read.
const (
	firstPause = time.Second
	lastPause  = 10 * time.Second
)

// An opened seed is one whose table may be here.
type opened struct {
	layer.Seed
	// Origin.mu guards these:
	users  map[*image]struct{}
	table  *seed.Table // nil: it is not here
	number int32       // of the table in the index
	used   int64       // when it was used, of index.uses
	failed error       // why it is not here
	pause  time.Duration
	again  time.Time // when it is tried again
	vicinity

	opening chan struct{} // full while somebody reads the table
}

func newOpened(s layer.Seed) *opened {
	return &opened{Seed: s, users: map[*image]struct{}{}, opening: make(chan struct{}, 1)}
}

// open reads the head of a seed, unless it was read.
func (o *Origin) open(ctx context.Context, s *opened) error {
	select {
	case s.opening <- struct{}{}:
		defer func() { <-s.opening }()
	case <-ctx.Done():
		return ctx.Err()
	}
	o.mu.Lock()
	here, places, failed := s.table != nil, s.placesLocked(o), s.failed
	wait := time.Now().Before(s.again)
	o.mu.Unlock()
	if here {
		return nil
	}
	if wait {
		return failed
	}
	h, head, from, err := o.readHead(ctx, s, places)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.index.add(s, h.Table)
		// Whoever opens the layer asks for the mount frame next.
		last := len(h.Table.Frames) - 1
		o.frames.add(frameKey{s, last}, cachedFrame{data: bytes.Clone(head[:h.Table.Frames[last].Len]), from: from})
	case ctx.Err() == nil:
		o.failSeedLocked(s, err)
	}
	return err
}

// failSeedLocked notes that the table of a seed could not be had, or is not what it should be.
func (o *Origin) failSeedLocked(s *opened, err error) {
	o.index.drop(s)
	s.failed, s.pause = err, min(max(2*s.pause, firstPause), lastPause)
	s.again = time.Now().Add(s.pause)
}

// readHead reads the head of a seed from the first place that has it.
func (o *Origin) readHead(ctx context.Context, s *opened, places []Place) (h *seed.Head, head []byte, from string, err error) {
	size := s.Size - s.Head
	if size > seed.MaxHead {
		return nil, nil, "", fmt.Errorf("its head has %d bytes: %w", size, seed.ErrTooLarge)
	}
	var errs []error
	for _, p := range places {
		head, err = o.readRange(ctx, p, s.Digest, s.Head, size)
		if err == nil {
			h, err = seed.ParseHead(o.codec, head, s.Head)
		}
		o.noteTurn(ctx, p, err)
		if err == nil {
			return h, head, p.String(), nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", p, err))
	}
	return nil, nil, "", errors.Join(errs...)
}

// readRange reads a range as a whole.
func (o *Origin) readRange(ctx context.Context, p Place, d digest.Digest, off, n int64) ([]byte, error) {
	release, err := o.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	r, err := o.watch(ctx, p, d, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readFull(r, n)
}

// readFull reads n bytes, and takes memory for them as they come.
func readFull(r io.Reader, n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, n))
	if err == nil && int64(len(b)) < n {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		err = fmt.Errorf("%d bytes of %d came: %w: %w", len(b), n, err, ErrAway)
	}
	return b, err
}

// read does one request, or, where a place fails, several.
func (f *fetch) read(ctx context.Context, r *read) error {
	if r.seed == nil {
		return f.readBlob(ctx, r)
	}
	if ipfs.RankOf(ctx) == ipfs.Demanded {
		f.readAround(r)
	}
	f.await(ctx, r)
	if err := f.fromCache(r); err != nil {
		return err
	}
	release, err := f.slot(ctx)
	if err != nil {
		return err
	}
	defer release()
	if err := f.fromCache(r); err != nil { // another fetch may have read it meanwhile
		return err
	}
	f.drop(r)
	mine := f.mine(r)
	for _, p := range r.places {
		frames := f.left(mine)
		if len(frames) == 0 || ctx.Err() != nil {
			break
		}
		err := f.readFrames(ctx, p, r, frames)
		if err != nil {
			if ended := f.fail(ctx, fmt.Errorf("seed %s from %s: %w", r.blob, p, err)); ended != nil {
				return ended
			}
		} else if len(f.left(frames)) > 0 {
			err = seed.ErrSeed
		}
		f.noteTurn(ctx, p, err)
	}
	if len(f.left(mine)) > 0 && ctx.Err() == nil && !f.wasAway() {
		// All places were read, and have other blocks than the table says: it may be one that a place made up.
		f.Origin.mu.Lock()
		defer f.Origin.mu.Unlock()
		if r.seed.table == r.table {
			f.failSeedLocked(r.seed, fmt.Errorf("seed %s: %w: its table is of something else", r.blob, seed.ErrSeed))
		}
	}
	return nil
}

func (f *fetch) wasAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// fail notes why something did not come. It returns the error of fn, if that has ended the fetch.
func (f *fetch) fail(ctx context.Context, err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() == nil {
		f.failLocked(err)
	}
	return f.ended
}

// fromCache delivers what is here.
func (f *fetch) fromCache(r *read) error {
	for _, fr := range r.frames {
		f.Origin.mu.Lock()
		key := frameKey{r.seed, fr.number}
		cached, ok := f.frames.get(key)
		if ok && len(fr.wanted) > 0 {
			f.wasOfUseLocked(key, cached)
		}
		f.Origin.mu.Unlock()
		if !ok {
			continue
		}
		if _, err := f.deliverFrame(r, fr, cached); err != nil {
			return err
		}
	}
	return nil
}

// readFrames reads frames from one place.
func (f *fetch) readFrames(ctx context.Context, p Place, r *read, frames []frameRead) error {
	s, all, read := r.seed, r.table.Frames, int64(0)
	ended := f.pace.begin()
	defer func() { ended(read) }()
	t := f.meter.begin()
	defer t.end(false)
	first, last := all[frames[0].number], all[frames[len(frames)-1].number]
	body, err := f.watch(ctx, p, s.Digest, first.Off, last.Off+int64(last.Len)-first.Off)
	if err != nil {
		return err
	}
	defer body.Close()
	for _, fr := range frames {
		data, err := readFull(body, int64(all[fr.number].Len))
		if err != nil {
			return err
		}
		read += int64(len(data))
		came := cachedFrame{data: data, from: p.String()}
		good, err := f.deliverFrame(r, fr, came)
		if err != nil {
			return err
		}
		if wanted := fr.size(); wanted > 0 {
			t.brought(wanted)
		}
		if good {
			f.Origin.mu.Lock()
			f.frames.add(frameKey{s, fr.number}, came)
			f.Origin.mu.Unlock()
		}
	}
	return nil
}

// deliverFrame delivers what is wanted of a frame. It is good if all of that was in it. The error is that of fn.
func (f *fetch) deliverFrame(r *read, fr frameRead, came cachedFrame) (good bool, err error) {
	if len(fr.wanted) == 0 {
		return false, nil
	}
	blocks, err := f.decompressed(r, fr.number, came)
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.failLocked(fmt.Errorf("seed %s: %w", r.blob, err))
		return false, f.ended
	}
	good = true
	for _, w := range fr.wanted {
		ok, err := f.deliver(w.cid, blocks[w.place.From:w.place.To:w.place.To], came.from)
		if err != nil {
			return false, err
		}
		good = good && ok
	}
	if good {
		f.Origin.mu.Lock()
		defer f.Origin.mu.Unlock()
		f.blocks.add(frameKey{r.seed, fr.number}, cachedFrame{data: blocks, from: came.from, table: r.table})
	}
	return good, nil
}

// decompressed returns what is in a frame, if it was good lately: who reads small files one after the other has it decompressed once.
func (f *fetch) decompressed(r *read, number int, came cachedFrame) (blocks []byte, err error) {
	f.Origin.mu.Lock()
	cached, ok := f.blocks.get(frameKey{r.seed, number})
	f.Origin.mu.Unlock()
	if ok && cached.table == r.table {
		return cached.data, nil
	}
	return r.table.Decompress(f.codec, number, came.data)
}

// readBlob reads a block that is a blob.
func (f *fetch) readBlob(ctx context.Context, r *read) error {
	for _, p := range r.places {
		data, err := f.blob(ctx, p, r.blob)
		f.noteTurn(ctx, p, err)
		if err != nil {
			if ended := f.fail(ctx, fmt.Errorf("blob %s from %s: %w", r.blob, p, err)); ended != nil || ctx.Err() != nil {
				return ended
			}
			continue
		}
		if came, err := f.deliver(r.block, data, p.String()); came || err != nil {
			return err
		}
	}
	return nil
}

// blob reads a blob of a size that is not known.
func (f *fetch) blob(ctx context.Context, p Place, d digest.Digest) ([]byte, error) {
	release, err := f.slot(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	body, err := f.watch(ctx, p, d, 0, -1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxBlob+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, ErrAway)
	}
	if len(data) > maxBlob {
		err = fmt.Errorf("it has more than %d bytes", maxBlob)
	}
	return data, err
}
