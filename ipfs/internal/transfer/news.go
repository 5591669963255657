package transfer

import (
	"sync"

	"github.com/ipfs/go-cid"
)

const (
	// maxNews bounds the wants of all streams that are told when a block comes, and maxStreamNews those
	// of one, of which each block has one. Others wait until they are cancelled: whoever
	// asks for so much learns from others.
	maxNews       = 1 << 17
	maxStreamNews = 1 << 13
)

// news are wants for news of blocks that are not here. Each is there from before the store is looked
// at, so that nothing that comes at the same time is missed.
type news struct {
	mu     sync.Mutex
	wanted map[cid.Cid]map[*queue]*job
	all    int
	of     map[*queue]int
}

func (n *news) enter(q *queue, j *job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wanted == nil {
		n.wanted, n.of = make(map[cid.Cid]map[*queue]*job), make(map[*queue]int)
	}
	of := n.wanted[j.cid]
	if of[q] != nil || n.all >= maxNews || n.of[q] >= maxStreamNews {
		return
	}
	if of == nil {
		of = make(map[*queue]*job)
		n.wanted[j.cid] = of
	}
	of[q] = j
	n.all++
	n.of[q]++
}

// end takes out a want that is answered for good.
func (n *news) end(q *queue, j *job) {
	n.mu.Lock()
	defer n.mu.Unlock()
	of := n.wanted[j.cid]
	if of[q] != j {
		return
	}
	delete(of, q)
	if len(of) == 0 {
		delete(n.wanted, j.cid)
	}
	n.all--
	if n.of[q]--; n.of[q] == 0 {
		delete(n.of, q)
	}
}

// leave takes out the wants of a stream that is over.
func (n *news) leave(q *queue) {
	for _, j := range q.unanswered() {
		n.end(q, j)
	}
}

// Arrived says that blocks can be had from the store now.
func (s *Server) Arrived(blocks []cid.Cid) {
	tell := make(map[*job]*queue)
	s.news.mu.Lock()
	for _, c := range blocks {
		for q, j := range s.news.wanted[c] {
			tell[j] = q
		}
	}
	s.news.mu.Unlock()
	for j, q := range tell {
		q.came(j)
	}
}

// Waiting returns the streams whose peers wait for news of some block.
func (s *Server) Waiting() (streams []Stream) {
	s.news.mu.Lock()
	defer s.news.mu.Unlock()
	for q := range s.news.of {
		streams = append(streams, q.stream)
	}
	return streams
}
