package fetch

import (
	"container/list"
	"context"

	"github.com/hinshun/ipcs/ipfs"
)

type priority int

const (
	demanded priority = iota // somebody waits
	ahead
	priorities
)

// limits bound what is under way: concurrent batches, and leaves and bytes in a batch.
// Batches that somebody waits for are small, so that a leaf which nobody has holds up no
// others, and many. Their product bounds the memory that leaves in flight take.
var limits = [priorities]struct{ batches, leaves, bytes int }{
	demanded: {batches: 64, leaves: 32, bytes: ipfs.LeafSize},
	ahead:    {batches: 4, leaves: 64, bytes: 4 * ipfs.LeafSize},
}

// scheduler holds the wants, and says which are next. Fetcher.mu guards it.
type scheduler struct {
	wants  map[string]*want // queued or under way, by the leaf's CID
	queues [priorities]*list.List
	places map[*want]*list.Element // of those that are queued
	busy   map[*batch]context.CancelFunc
	count  [priorities]int // of busy batches
}

// batch is what the source is asked for at once.
type batch struct {
	priority priority
	wants    []*want
}

func newScheduler() scheduler {
	s := scheduler{wants: make(map[string]*want), places: make(map[*want]*list.Element), busy: make(map[*batch]context.CancelFunc)}
	for p := range s.queues {
		s.queues[p] = list.New()
	}
	return s
}

func (s *scheduler) push(key string, w *want) {
	s.wants[key] = w
	s.places[w] = s.queues[w.priority].PushBack(w)
}

// promote moves a want that was queued to be read ahead to those that somebody waits for.
func (s *scheduler) promote(w *want) {
	e, queued := s.places[w]
	if !queued || w.priority == demanded {
		return
	}
	s.queues[w.priority].Remove(e)
	w.priority = demanded
	s.places[w] = s.queues[demanded].PushBack(w)
}

// next takes the next batch out of the queues; nil if there is none, or enough under way.
func (s *scheduler) next() *batch {
	for p, queue := range s.queues {
		limit := limits[p]
		if queue.Len() == 0 || s.count[p] >= limit.batches {
			continue
		}
		b := &batch{priority: priority(p)}
		for size := 0; queue.Len() > 0 && len(b.wants) < limit.leaves; {
			w := queue.Front().Value.(*want)
			if size += w.size; size > limit.bytes && len(b.wants) > 0 {
				break
			}
			queue.Remove(s.places[w])
			delete(s.places, w)
			b.wants = append(b.wants, w)
		}
		return b
	}
	return nil
}

func (s *scheduler) started(b *batch, cancel context.CancelFunc) {
	s.busy[b] = cancel
	s.count[b.priority]++
}

func (s *scheduler) finished(b *batch) {
	s.busy[b]()
	delete(s.busy, b)
	s.count[b.priority]--
}

// stop cancels what is under way, and empties the queues and returns what was in them.
func (s *scheduler) stop() []*want {
	for _, cancel := range s.busy {
		cancel()
	}
	var waiting []*want
	for w := range s.places {
		waiting = append(waiting, w)
	}
	clear(s.places)
	for _, q := range s.queues {
		q.Init()
	}
	return waiting
}

// dispatchLocked starts what may be started. Of ctx only the values count: a fetch
// belongs to the content, not to the reader that happened to start it.
func (f *Fetcher) dispatchLocked(ctx context.Context) {
	for !f.closed {
		b := f.sched.next()
		if b == nil {
			return
		}
		ctx := withIdle(ctx, f.timeout)
		f.sched.started(b, ctx.cancel)
		f.wg.Go(func() { f.run(ctx, b) })
	}
}
