package transfer

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

func (m *memory) put(b ipfs.Block) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blocks[b.Cid] = b.Data
}

// answer is the next frame, which has one answer.
func (s *session) answer(t *testing.T) Answer {
	t.Helper()
	all, _ := s.answers(t, 1)
	if len(all) != 1 {
		t.Fatalf("a frame with %d answers", len(all))
	}
	return all[0]
}

// waiting returns how many wants a server has that wait for news.
func (s *Server) waiting() int {
	s.news.mu.Lock()
	defer s.news.mu.Unlock()
	return s.news.all
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal(what + " did not happen")
		}
	}
}

// TestNews is told that a block is not there, and then that it is.
func TestNews(t *testing.T) {
	list := text(t, 3, 500)
	store := newMemory(list[0])
	s := connect(t, store)
	s.want(t, Want{Cid: list[0].Cid, Have: true, News: true})
	if a := s.answer(t); a.State != Here {
		t.Errorf("of a block that is there: state %d", a.State)
	}
	s.want(t, Want{Cid: list[1].Cid, Have: true, News: true}, Want{Cid: list[1].Cid, Have: true, News: true})
	if a := s.answer(t); a.State != Absent {
		t.Errorf("of a block that is not there: state %d", a.State)
	}
	s.server.Arrived([]cid.Cid{list[1].Cid, list[2].Cid}) // of which it had none: it looks, and finds nothing
	store.put(list[1])
	s.server.Arrived([]cid.Cid{list[1].Cid})
	if a := s.answer(t); a.State != Here || a.Cid != list[1].Cid {
		t.Errorf("of a block that has come: %+v", a)
	}
	eventually(t, "that nobody waits", func() bool { return s.server.waiting() == 0 })
	s.want(t, Want{Cid: list[1].Cid})
	if a := s.answer(t); a.State != Sent {
		t.Errorf("a block that has come: state %d", a.State)
	}
	if len(s.open)+len(s.news)+len(s.blocks) > 0 {
		t.Errorf("%d wants are open: %v, %v", len(s.open), s.news, s.blocks)
	}
}

// TestNewsTakenBack cancels before a block comes, by saying so or by wanting the block.
func TestNewsTakenBack(t *testing.T) {
	list := text(t, 2, 500)
	store := newMemory()
	s := connect(t, store)
	for _, b := range list {
		s.want(t, Want{Cid: b.Cid, Have: true, News: true})
		if a := s.answer(t); a.State != Absent {
			t.Fatalf("state %d", a.State)
		}
	}
	s.want(t, Want{Cid: list[0].Cid, Cancel: true}, Want{Cid: list[1].Cid})
	if a := s.answer(t); a.State != Absent || a.Cid != list[1].Cid {
		t.Errorf("the block that is wanted: %+v", a)
	}
	eventually(t, "that nobody waits", func() bool { return s.server.waiting() == 0 })
	store.put(list[0])
	s.server.Arrived([]cid.Cid{list[0].Cid})
	s.want(t, Want{Cid: list[0].Cid})
	if a := s.answer(t); a.State != Sent {
		t.Errorf("after it was cancelled: %+v", a)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) > 0 {
		t.Errorf("%d wants are open", len(s.open))
	}
}

// TestNewsAtAnyMoment has blocks come while it is looked whether they are there, and wants be taken
// back meanwhile: none is missed, and each is answered by the rules.
func TestNewsAtAnyMoment(t *testing.T) {
	const n = 2000
	list := blocks(t, n, func(i int) []byte { return fmt.Appendf(nil, "block %d", i) })
	store := newMemory()
	s := connect(t, store)
	go func() {
		for _, b := range list {
			store.put(b)
			s.server.Arrived([]cid.Cid{b.Cid})
		}
	}()
	for i, b := range list {
		s.want(t, Want{Cid: b.Cid, Have: true, News: true})
		if i%3 == 0 {
			s.want(t, Want{Cid: b.Cid, Cancel: true})
		}
	}
	came := map[cid.Cid]bool{}
	for len(came) < n-(n+2)/3 {
		all, _ := s.answers(t, 1)
		for _, a := range all {
			for i := range list {
				if a.State == Here && list[i].Cid == a.Cid && i%3 != 0 {
					came[a.Cid] = true
				}
			}
		}
	}
	eventually(t, "that nobody waits", func() bool { return s.server.waiting() == 0 })
}

// TestNewsOfAStreamThatEnds leaves nothing.
func TestNewsOfAStreamThatEnds(t *testing.T) {
	b := text(t, 1, 500)[0]
	server := NewServer(newMemory(), nil, newCodec(t))
	t.Run("stream", func(t *testing.T) {
		s := connectTo(t, server)
		s.want(t, Want{Cid: b.Cid, Have: true, News: true})
		if a := s.answer(t); a.State != Absent || server.waiting() != 1 {
			t.Errorf("%+v, %d wait", a, server.waiting())
		}
	})
	if n := server.waiting(); n > 0 {
		t.Errorf("%d wait", n)
	}
	server.Arrived([]cid.Cid{b.Cid})
}

// TestNewsTwiceNo is told twice that a block is not there.
func TestNewsTwiceNo(t *testing.T) {
	b := text(t, 1, 500)[0]
	c := NewClient(discard{}, newCodec(t), new(Received))
	if err := c.Send([]Want{{Cid: b.Cid, Have: true, News: true}}); err != nil {
		t.Fatal(err)
	}
	no := header{kind: frameAbsent, parts: []part{{id: 0}}}
	if _, err := c.close(no); err != nil {
		t.Fatal(err)
	}
	if _, err := c.close(no); !errors.Is(err, ErrProtocol) {
		t.Errorf("the second no: %v", err)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
