package origin

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

// Where no profile says what is read, programs wait for one frame after the other. They read packages, which are directories, and these lie together: so
// once several frames that somebody waited for lie near each other, what lies around the next one comes beside it, as it is, into
// the cache of frames. Who wants one of these waits until it comes.
const (
	// aroundLatency is how far away the place is: where it is near, more requests cost less than more bytes.
	aroundLatency = 50 * time.Millisecond
	// nearFrames is how near frames are that are near each other, and nearReads how many of the last knownReads must be.
	nearFrames            = 16
	nearReads, knownReads = 2, 8
	// aroundBytes is how much comes on either side.
	aroundBytes = 3 << 19
	// What came of a seed in this way is wasteBytes, and wasteShare of what was of use, at most.
	wasteBytes, wasteShare = 4 << 20, 2
)

// A vicinity is what is known of the frames of a seed that somebody waited for. Origin.mu guards it.
type vicinity struct {
	last       []int
	came, used int64 // bytes of frames around others
}

// note notes a frame, and says whether others are near it.
func (v *vicinity) note(frame int) (near bool) {
	n := 0
	for _, other := range v.last {
		if other == frame {
			return n >= nearReads
		}
		if max(other, frame)-min(other, frame) <= nearFrames {
			n++
		}
	}
	if len(v.last) == knownReads {
		v.last = slices.Delete(v.last, 0, 1)
	}
	v.last = append(v.last, frame)
	return n >= nearReads
}

// surroundings are the requests for what lies around others. Origin.mu guards the map.
type surroundings struct {
	coming map[frameKey]chan struct{} // closed when the frame is in the cache, or does not come
	ctx    context.Context            // of the Origin: nobody in particular waits for these
	stop   context.CancelFunc
	wg     sync.WaitGroup
}

func newSurroundings() surroundings {
	ctx, stop := context.WithCancel(ipfs.WithRank(context.Background(), ipfs.Ahead))
	return surroundings{coming: map[frameKey]chan struct{}{}, ctx: ctx, stop: stop}
}

// Close ends what nobody waits for.
func (o *Origin) Close() error {
	o.mu.Lock()
	o.around.stop()
	o.mu.Unlock()
	o.around.wg.Wait()
	return nil
}

// readAround begins to read what lies around frames that somebody waits for.
func (o *Origin) readAround(r *read) {
	if first, known := o.meter.cost(0); !known || first < aroundLatency || o.together() {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.around.ctx.Err() != nil {
		return
	}
	frames := map[int][]wantedBlock{}
	for _, fr := range r.frames {
		if len(fr.wanted) > 0 && r.seed.vicinity.note(fr.number) {
			o.aroundLocked(r, fr.number, 1, frames)
			o.aroundLocked(r, fr.number, -1, frames)
		}
	}
	for _, one := range r.seed.ranges(&hit{table: r.table, places: r.places, frames: frames}, maxRange) {
		o.around.wg.Go(func() { o.readSurroundings(one) })
	}
}

// aroundLocked adds the frames on one side of one that are not here, and are not wanted either.
func (o *Origin) aroundLocked(r *read, frame, step int, frames map[int][]wantedBlock) {
	all, v := r.table.Frames, &r.seed.vicinity
	bytes := int64(0)
	for n := frame + step; n >= 0 && n < len(all) && max(n, frame)-min(n, frame) <= nearFrames; n += step {
		if bytes += int64(all[n].Len); bytes > aroundBytes {
			return
		}
		key := frameKey{r.seed, n}
		_, here := o.frames.get(key)
		if here || o.around.coming[key] != nil || slices.ContainsFunc(r.frames, func(fr frameRead) bool { return fr.number == n }) {
			continue
		}
		if v.came+int64(all[n].Len) > wasteBytes+wasteShare*v.used {
			return
		}
		v.came += int64(all[n].Len)
		frames[n], o.around.coming[key] = nil, make(chan struct{})
	}
}

// readSurroundings reads frames into the cache. Nothing of them is verified: whoever takes a block out of them does that.
func (o *Origin) readSurroundings(r *read) {
	defer func() {
		for _, fr := range r.frames {
			o.keepAround(frameKey{r.seed, fr.number}, cachedFrame{})
		}
	}()
	release, err := o.slot(o.around.ctx)
	if err != nil {
		return
	}
	defer release()
	for _, p := range r.places {
		err := o.readInto(r, p)
		if o.noteTurn(o.around.ctx, p, err); err == nil || o.around.ctx.Err() != nil {
			return
		}
		o.log.Debug("cannot read what lies around others", "seed", r.blob.String(), "place", p.String(), "err", err)
	}
}

func (o *Origin) readInto(r *read, p Place) error {
	all := r.table.Frames
	first, last := all[r.frames[0].number], all[r.frames[len(r.frames)-1].number]
	body, err := o.watch(o.around.ctx, p, r.blob, first.Off, last.Off+int64(last.Len)-first.Off)
	if err != nil {
		return err
	}
	defer body.Close()
	for _, fr := range r.frames {
		data, err := readFull(body, int64(all[fr.number].Len))
		if err != nil {
			return err
		}
		o.keepAround(frameKey{r.seed, fr.number}, cachedFrame{data: data, from: p.String(), around: true})
	}
	return nil
}

// keepAround keeps a frame, or none if it did not come, and tells who waits for it.
func (o *Origin) keepAround(key frameKey, came cachedFrame) {
	o.mu.Lock()
	defer o.mu.Unlock()
	coming := o.around.coming[key]
	if coming == nil {
		return // it lies between others, or has come
	}
	delete(o.around.coming, key)
	close(coming)
	if _, here := o.frames.get(key); !here && came.data != nil {
		o.frames.add(key, came)
	}
}

// await waits for frames that come because they lie around others, but not for a request that hangs.
func (f *fetch) await(ctx context.Context, r *read) {
	hangs := time.NewTimer(originPatience)
	defer hangs.Stop()
	for _, fr := range r.frames {
		if len(fr.wanted) == 0 {
			continue
		}
		f.Origin.mu.Lock()
		coming := f.around.coming[frameKey{r.seed, fr.number}]
		f.Origin.mu.Unlock()
		if coming == nil {
			continue
		}
		select {
		case <-coming:
		case <-hangs.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wasOfUseLocked notes that a frame that had come with others was wanted.
func (o *Origin) wasOfUseLocked(key frameKey, cached cachedFrame) {
	if !cached.around {
		return
	}
	key.seed.vicinity.used += int64(len(cached.data))
	cached.around = false
	o.frames.add(key, cached)
}
