package transfer

import (
	"sync"
	"time"
)

// idlers are the streams that are being served. Those of which nothing is wanted are what can
// be given up when there are too many.
type idlers struct {
	mu     sync.Mutex
	served map[*serving]struct{}
}

// enter adds a stream, and returns what takes it out again.
func (i *idlers) enter(v *serving) (leave func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.served == nil {
		i.served = make(map[*serving]struct{})
	}
	i.served[v] = struct{}{}
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		delete(i.served, v)
	}
}

// DropIdlest ends the stream on which nothing has been wanted for the longest time, one that waits for
// news only if there is no other, and returns false if all are at work. Its Serve returns soon.
func (s *Server) DropIdlest() bool {
	s.idlers.mu.Lock()
	defer s.idlers.mu.Unlock()
	var idlest *serving
	var since time.Time
	waits := true // for news
	for v := range s.idlers.served {
		t, idle, news := v.queue.idleSince()
		if idle && (idlest == nil || waits && !news || waits == news && t.Before(since)) {
			idlest, since, waits = v, t, news
		}
	}
	if idlest == nil {
		return false
	}
	delete(s.idlers.served, idlest) // it is not dropped twice
	_ = idlest.stream.Reset()       // it may be over already
	return true
}
