package transfer

import (
	"container/heap"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
)

// job is a want that a server has to answer.
type job struct {
	id        uint64
	rank      uint8
	cid       cid.Cid
	have      bool // only whether the block is here
	news      bool // and again when it has come
	told      bool // that it is not here; of its preparer
	waits     bool // for news, and is in no heap; guarded by queue.mu
	arrived   bool // the block has come since it was looked for; guarded by queue.mu
	cancelled bool // guarded by queue.mu
	index     int  // in the heap, -1 when it is not there; guarded by queue.mu
}

// newsDelay is how long news may be late, so that many go out at once.
const newsDelay = 20 * time.Millisecond

// agedEvery is how often the oldest want is taken, whatever its rank: none waits for ever.
const agedEvery = 16

// jobs is a heap: cancelled ones, which cost nothing, then by rank; within one, questions whether a
// block is here, which cost little and tell who is to be asked for it, and then by number.
type jobs []*job

func (q jobs) Len() int { return len(q) }
func (q jobs) Less(i, j int) bool {
	if q[i].cancelled != q[j].cancelled {
		return q[i].cancelled
	}
	if q[i].rank != q[j].rank {
		return q[i].rank < q[j].rank
	}
	if q[i].have != q[j].have {
		return q[i].have
	}
	return q[i].id < q[j].id
}
func (q jobs) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}
func (q *jobs) Push(x any) {
	j := x.(*job)
	j.index = len(*q)
	*q = append(*q, j)
}
func (q *jobs) Pop() any {
	last := len(*q) - 1
	j := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	j.index = -1
	return j
}

// queue is what a stream's peer wants.
type queue struct {
	mu      sync.Mutex
	changed *sync.Cond
	stream  Stream // on which they came
	waiting jobs
	open    map[uint64]*job // without an answer
	next    uint64          // number of the next want
	taken   int             // by take
	busy    int             // preparers at work
	fresh   []*job          // that wait for news, and whose blocks have come
	tell    chan struct{}   // has room for one: there are fresh ones
	idle    time.Time       // since when nothing is wanted, and nobody at work; else zero
	closed  bool            // nothing is handed out any more
}

func newQueue(stream Stream) *queue {
	q := &queue{stream: stream, open: make(map[uint64]*job), tell: make(chan struct{}, 1), idle: time.Now()}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// add takes the entries of a request.
func (q *queue) add(asks []ask) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, a := range asks {
		if a.verb == wantCancel {
			if a.id >= q.next {
				return fmt.Errorf("%w: want %d is cancelled, and there were %d", ErrProtocol, a.id, q.next)
			}
			if j := q.open[a.id]; j != nil {
				j.cancelled = true
				if j.index >= 0 {
					heap.Fix(&q.waiting, j.index)
				} else if j.waits {
					q.requeue(j)
				}
			}
			continue
		}
		if len(q.open) >= MaxUnanswered {
			return fmt.Errorf("%w: more than %d wants without an answer", ErrProtocol, MaxUnanswered)
		}
		j := &job{id: q.next, rank: a.rank, cid: a.cid, have: a.verb != wantBlock, news: a.verb == wantNews}
		q.next++
		q.open[j.id] = j
		heap.Push(&q.waiting, j)
	}
	q.changed.Broadcast()
	return nil
}

// settle has wants that were told that their blocks are not here wait for news. What has come, or
// was cancelled, meanwhile is answered once more. It is called when the answer is on its way,
// so that the next comes after it.
func (q *queue) settle(parts []part) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range parts {
		if j := q.open[p.id]; j != nil && p.more {
			q.wait(j)
		}
	}
}

// wait has a want wait for news; the caller holds mu.
func (q *queue) wait(j *job) {
	j.waits = true
	if j.arrived || j.cancelled {
		q.requeue(j)
	}
}

// waitOn has a want wait for news again: what had come is gone.
func (q *queue) waitOn(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wait(j)
}

// came has a want answered whose block has come, soon.
func (q *queue) came(j *job) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.arrived {
		return
	}
	if j.arrived = true; j.waits {
		q.fresh = append(q.fresh, j)
		select {
		case q.tell <- struct{}{}:
		default:
		}
	}
}

// news has the wants answered whose blocks have come, some at a time, until ctx ends.
func (q *queue) news(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.tell:
		}
		timer := time.NewTimer(newsDelay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		q.mu.Lock()
		for _, j := range q.fresh {
			if j.waits { // it may have been cancelled
				q.requeue(j)
			}
		}
		q.fresh = nil
		q.mu.Unlock()
	}
}

// requeue has a want that waits for news answered once more; the caller holds mu.
func (q *queue) requeue(j *job) {
	j.waits, j.arrived = false, false
	heap.Push(&q.waiting, j)
	q.changed.Broadcast()
}

// unanswered returns the wants that have no answer, or wait for news.
func (q *queue) unanswered() []*job {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Collect(maps.Values(q.open))
}

// idleSince returns since when nothing is to be answered, if so, and whether news are waited for.
func (q *queue) idleSince() (since time.Time, idle, news bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.idle, !q.idle.IsZero() && q.waiting.Len() == 0 && !q.closed, len(q.open) > 0
}

// close ends the waiting of all.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// await returns when something is wanted, or false at the end.
func (q *queue) await() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && q.waiting.Len() == 0 {
		if q.busy == 0 && q.idle.IsZero() {
			q.idle = time.Now()
		}
		q.changed.Wait()
	}
	return !q.closed
}

// take returns the most urgent want, or at times the oldest, or nil if there is none. It says whether there was nothing
// to do before. Who has one says done before it takes another.
func (q *queue) take() (j *job, idled bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.waiting.Len() == 0 {
		return nil, false
	}
	idled, q.idle = !q.idle.IsZero(), time.Time{}
	q.busy++
	next := 0
	if q.taken++; q.taken%agedEvery == 0 {
		for i, j := range q.waiting {
			if j.id < q.waiting[next].id {
				next = i
			}
		}
	}
	return heap.Remove(&q.waiting, next).(*job), idled
}

// more returns the most urgent want if there is one of this rank, or that was cancelled.
func (q *queue) more(rank uint8) *job {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || q.waiting.Len() == 0 || !q.waiting[0].cancelled && q.waiting[0].rank != rank {
		return nil
	}
	return heap.Pop(&q.waiting).(*job)
}

func (q *queue) done() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.busy--
}

func (q *queue) isCancelled(j *job) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return j.cancelled
}

// answered says that these wants are about to be answered. Before the answer: with it, the
// peer may want more.
func (q *queue) answered(parts []part) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range parts {
		if !p.more {
			delete(q.open, p.id)
		}
	}
}
