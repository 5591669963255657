package transfer

import (
	"testing"
	"time"
)

// idle waits until so many streams of a server are idle.
func idle(t *testing.T, s *Server, n int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		s.idlers.mu.Lock()
		got := 0
		for v := range s.idlers.served {
			if _, idle, _ := v.queue.idleSince(); idle {
				got++
			}
		}
		s.idlers.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d streams are idle, want %d", got, n)
		}
	}
}

// TestDropIdlest gives up streams: the one that was idle for the longest time, then the other
// idle one, and none that is owed something.
func TestDropIdlest(t *testing.T) {
	list := noise(t, 2, 100_000)
	store := newMemory(list...)
	store.gate = make(chan struct{})
	server := NewServer(store, nil, newCodec(t))
	var sessions []*session
	for range 3 {
		sessions = append(sessions, connectTo(t, server))
		idle(t, server, len(sessions))
	}
	busy, first, second := sessions[0], sessions[2], sessions[1]
	second.want(t, Want{Cid: list[0].Cid, Have: true}) // it was idle for longer
	second.answers(t, 1)
	busy.want(t, wants(list, 0)...)
	store.gate <- struct{}{} // one is read, and the other is not
	idle(t, server, 2)
	for i, s := range []*session{first, second} {
		if !server.DropIdlest() {
			t.Fatalf("%d of two idle streams were given up", i)
		}
		if _, ok := <-s.frames; ok {
			t.Error("another stream was given up")
		}
	}
	if server.DropIdlest() {
		t.Error("a stream was given up that is owed a block")
	}
	close(store.gate)
	got, _ := busy.answers(t, 2)
	check(t, got, list)
}
