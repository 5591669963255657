package fetch

import (
	"container/list"
	"context"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

// A Priority says what goes first.
type Priority int

const (
	demanded Priority = iota // somebody waits
	ahead
	// Profile is for what is likely to be read soon.
	Profile
	// Whole is for images that somebody wants here before they are used.
	Whole
	// Fill is for all else: it goes on beside what is more urgent at a trickle.
	Fill
	priorities
)

// rank is what the source is told of it.
func (p Priority) rank() ipfs.Rank {
	switch p {
	case demanded:
		return ipfs.Demanded
	case ahead:
		return ipfs.Ahead
	case Profile:
		return ipfs.Planned
	default:
		return ipfs.Spare
	}
}

// limits bound what is under way: concurrent batches, and leaves and bytes in a batch.
// Batches that somebody waits for are small, so that a leaf which nobody has holds up no
// others, and many. Those of the others are few, so that what is demanded never has much
// before it, and of many small files, for the sake of long ways. Who wants a whole image waits for the
// last byte alone. What is under way covers 1 Gbit/s over a round trip of 20 ms many times: who is asked may not have it, and
// of many machines that want one image at the same time, each has something for the others only if they want the same by then. The
// product bounds the memory that leaves in flight take.
var limits = [priorities]struct{ batches, leaves, bytes int }{
	demanded: {batches: 64, leaves: 32, bytes: ipfs.LeafSize},
	ahead:    {batches: 4, leaves: 64, bytes: 4 * ipfs.LeafSize},
	Profile:  {batches: 4, leaves: 256, bytes: 2 * ipfs.LeafSize},
	Whole:    {batches: 16, leaves: 512, bytes: 4 * ipfs.LeafSize},
	Fill:     {batches: 4, leaves: 256, bytes: ipfs.LeafSize},
}

// calm is how many times longer a batch that nobody waits for may go without a leaf. Where many machines share narrow links,
// its leaves are behind much else; and the source has a limit of its own, for peers of which nothing comes.
const calm = 4

// scheduler holds the wants, and says which are next. Fetcher.mu guards it.
type scheduler struct {
	wants  map[string]*want // queued or under way, by the leaf's CID
	queues [priorities]*list.List
	places map[*want]*list.Element // of those that are queued
	busy   map[*batch]context.CancelFunc
	count  [priorities]int // of busy batches
	hurry  int             // readers that have waited long: nothing else goes beside them
}

// batch is what the source is asked for at once.
type batch struct {
	priority Priority
	wants    []*want
	// interrupted says that what it has not got is queued again.
	interrupted bool
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

// promote moves a want that waits in a queue to a more urgent one.
func (s *scheduler) promote(w *want, p Priority) {
	e, queued := s.places[w]
	if !queued || w.priority <= p {
		return
	}
	s.queues[w.priority].Remove(e)
	w.priority = p
	s.places[w] = s.queues[p].PushBack(w)
}

// most returns how many batches of a priority may be under way now.
func (s *scheduler) most(p Priority) int {
	if p >= Profile && s.hurry > 0 {
		return 0
	}
	if p >= Whole {
		for urgent := demanded; urgent < p; urgent++ {
			if s.count[urgent] > 0 {
				return 1
			}
		}
	}
	return limits[p].batches
}

// next takes the next batch out of the queues; nil if there is none, or enough under way.
func (s *scheduler) next() *batch {
	for p, queue := range s.queues {
		limit := limits[p]
		if queue.Len() == 0 || s.count[p] >= s.most(Priority(p)) {
			continue
		}
		b := &batch{priority: Priority(p)}
		for size := 0; queue.Len() > 0 && len(b.wants) < limit.leaves; {
			w := queue.Front().Value.(*want)
			if size += w.size; size > limit.bytes && len(b.wants) > 0 {
				break
			}
			queue.Remove(s.places[w])
			delete(s.places, w)
			w.batch = b
			b.wants = append(b.wants, w)
		}
		return b
	}
	return nil
}

// interrupt makes wants that are under way go first: the batches that hold them end, and so
// does all that nobody waits for. What these have not got is queued again.
func (s *scheduler) interrupt(wants []*want, p Priority) {
	hold := make(map[*batch]bool)
	for _, w := range wants {
		if s.promote(w, p); w.priority > p {
			w.priority = p
			hold[w.batch] = true
		}
	}
	for b, cancel := range s.busy {
		if hold[b] || b.priority >= Profile {
			b.interrupted = true
			cancel()
		}
	}
}

// again queues a want of a batch that was interrupted, before others.
func (s *scheduler) again(w *want) {
	w.batch = nil
	s.places[w] = s.queues[w.priority].PushFront(w)
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
		idle := f.timeout
		if b.priority >= Profile {
			idle *= calm
		}
		ctx := withIdle(ctx, idle)
		f.sched.started(b, ctx.cancel)
		f.noteLocked(b)
		f.wg.Go(func() { f.run(ctx, b) })
	}
}

// noteLocked notes that an urgent batch begins or ends.
func (f *Fetcher) noteLocked(b *batch) {
	if b.priority < Fill {
		f.urgent = time.Now()
	}
}
