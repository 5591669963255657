package fetch

import (
	"fmt"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

// queue queues n wants of a priority.
func (s *scheduler) queue(p Priority, n, size int) {
	for i := range n {
		s.push(fmt.Sprint(p, " ", i), &want{size: size, priority: p})
	}
}

// start starts all that may be under way, and returns what.
func (s *scheduler) start() (started []*batch) {
	for b := s.next(); b != nil; b = s.next() {
		s.started(b, func() {})
		started = append(started, b)
	}
	return started
}

// TestOrder finds that the more urgent is asked for first, and that little of what is less
// urgent is under way beside it.
func TestOrder(t *testing.T) {
	s := newScheduler()
	s.queue(Fill, 40, ipfs.LeafSize)
	s.queue(Profile, 6, ipfs.LeafSize)
	s.queue(ahead, 2, ipfs.LeafSize)
	s.queue(demanded, 1, ipfs.LeafSize)
	first := s.start()
	var order []Priority
	for _, b := range first {
		order = append(order, b.priority)
	}
	if got, want := fmt.Sprint(order), fmt.Sprint([]Priority{demanded, ahead, Profile, Profile, Profile, Fill}); got != want {
		t.Fatalf("started %s, want %s", got, want)
	}
	for i, b := range first[:5] {
		if more := s.start(); len(more) > 0 {
			t.Errorf("%d more to fill beside %d urgent batches", len(more), 5-i)
		}
		s.finished(b)
	}
	if more := s.start(); len(more) != limits[Fill].batches-1 {
		t.Errorf("%d more to fill when nothing else is under way", len(more))
	}
}

// TestPromote finds that what is demanded leaves the queue that it was in.
func TestPromote(t *testing.T) {
	s := newScheduler()
	s.queue(Fill, 3, 1)
	w := s.wants[fmt.Sprint(Fill, " ", 1)]
	s.promote(w, Profile)
	s.promote(w, Fill)
	if w.priority != Profile {
		t.Errorf("priority %d", w.priority)
	}
	s.promote(w, demanded)
	if b := s.next(); b.priority != demanded || len(b.wants) != 1 || b.wants[0] != w {
		t.Errorf("first comes %+v", b)
	}
	if b := s.next(); b.priority != Fill || len(b.wants) != 2 {
		t.Errorf("then comes %+v", b)
	}
}

// TestMuchIsNeverUnderWay bounds the memory of what is under way, and the bytes that a reader's request
// may find before it at peers that do not put first what somebody waits for.
func TestMuchIsNeverUnderWay(t *testing.T) {
	total := 0
	for p := ahead; p < priorities; p++ {
		total += limits[p].batches * limits[p].bytes
	}
	if total > 92*ipfs.LeafSize {
		t.Errorf("%d bytes may be under way that nobody waits for", total)
	}
	if beside := limits[Fill].bytes; beside > ipfs.LeafSize {
		t.Errorf("%d bytes to fill may be under way beside what is urgent", beside)
	}
}
