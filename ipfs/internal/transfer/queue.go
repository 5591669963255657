package transfer

import (
	"container/heap"
	"fmt"
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
	cancelled bool // guarded by queue.mu
	index     int  // in the heap, -1 when it is not there; guarded by queue.mu
}

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
	waiting jobs
	open    map[uint64]*job // without an answer
	next    uint64          // number of the next want
	taken   int             // by take
	busy    int             // preparers at work
	idle    time.Time       // since when nothing is wanted, and nobody at work; else zero
	closed  bool            // nothing is handed out any more
}

func newQueue() *queue {
	q := &queue{open: make(map[uint64]*job), idle: time.Now()}
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
				}
			}
			continue
		}
		if len(q.open) >= MaxUnanswered {
			return fmt.Errorf("%w: more than %d wants without an answer", ErrProtocol, MaxUnanswered)
		}
		j := &job{id: q.next, rank: a.rank, cid: a.cid, have: a.verb == wantHave}
		q.next++
		q.open[j.id] = j
		heap.Push(&q.waiting, j)
	}
	q.changed.Broadcast()
	return nil
}

// idleSince returns since when nothing is wanted, if so.
func (q *queue) idleSince() (time.Time, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.idle, !q.idle.IsZero() && q.waiting.Len() == 0 && !q.closed
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
		delete(q.open, p.id)
	}
}
