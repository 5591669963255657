package origin

import (
	"context"
	"slices"
	"strconv"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// slot returns when there is room for a request, and a function that gives it back.
func (o *Origin) slot(ctx context.Context) (release func(), err error) {
	spare := ipfs.RankOf(ctx) > ipfs.Ahead
	if spare {
		if err := o.spare.Acquire(ctx, 1); err != nil {
			return nil, err
		}
	}
	err = o.slots.Acquire(ctx, 1)
	if err != nil && spare {
		o.spare.Release(1)
	}
	return func() {
		o.slots.Release(1)
		if spare {
			o.spare.Release(1)
		}
	}, err
}

// frameName is what machines that get something together know a frame by.
func frameName(r *read, number int) string { return string(r.blob) + "/" + strconv.Itoa(number) }

// drop forgets what has come from elsewhere.
func (f *fetch) drop(r *read) {
	if f.still == nil {
		return
	}
	var cids []cid.Cid
	for _, fr := range r.frames {
		for _, w := range fr.wanted {
			cids = append(cids, w.cid)
		}
	}
	still := make(map[cid.Cid]struct{}, len(cids))
	for _, c := range f.still(cids) {
		still[c] = struct{}{}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cids {
		if _, ok := still[c]; !ok {
			delete(f.wanted, c)
		}
	}
}

// mine returns the frames that are this node's, with what lies between them: nothing is wanted of that.
func (f *fetch) mine(r *read) []frameRead {
	if f.own == nil {
		return r.frames
	}
	frames, owners := slices.Clone(r.frames), f.own()
	for i, fr := range frames {
		if len(fr.wanted) > 0 && !owners.own(frameName(r, fr.number)) {
			frames[i].wanted = nil
		}
	}
	return frames
}

// left returns the frames of which something is still wanted, with what lies between them.
func (f *fetch) left(frames []frameRead) []frameRead {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, last := len(frames), 0
	for i, fr := range frames {
		for _, w := range fr.wanted {
			if _, ok := f.wanted[w.cid]; ok {
				first, last = min(first, i), i+1
				break
			}
		}
	}
	if first >= last {
		return nil
	}
	return frames[first:last]
}
