package transfer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// pipe is one end of a stream.
type pipe struct{ net.Conn }

func (p pipe) Reset() error { return p.Close() }

// text returns blocks that compress well.
func text(t testing.TB, n, size int) []ipfs.Block {
	t.Helper()
	return blocks(t, n, func(i int) []byte {
		var data []byte
		for j := 0; len(data) < size; j++ {
			data = fmt.Appendf(data, "line %d of block %d: all that is said here was said before\n", j, i)
		}
		return data[:size]
	})
}

// noise returns blocks that do not compress.
func noise(t testing.TB, n, size int) []ipfs.Block {
	t.Helper()
	return blocks(t, n, func(i int) []byte {
		data := make([]byte, size)
		rand.NewChaCha8([32]byte{byte(i), byte(size)}).Read(data)
		return data
	})
}

func blocks(t testing.TB, n int, make func(i int) []byte) []ipfs.Block {
	t.Helper()
	var out []ipfs.Block
	for i := range n {
		b, err := ipfs.NewBlock(cid.Raw, make(i))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// memory is a store. Gets of blocks wait for gate, if there is one.
type memory struct {
	gate chan struct{}

	mu     sync.Mutex
	blocks map[cid.Cid][]byte
	forms  map[cid.Cid][]byte
	sizes  map[cid.Cid]int
	gets   int
	begun  []cid.Cid // what Get was called for
}

func newMemory(blocks ...ipfs.Block) *memory {
	m := &memory{blocks: map[cid.Cid][]byte{}, forms: map[cid.Cid][]byte{}, sizes: map[cid.Cid]int{}}
	for _, b := range blocks {
		m.blocks[b.Cid] = b.Data
	}
	return m
}

func (m *memory) Get(ctx context.Context, c cid.Cid) ([]byte, error) {
	m.mu.Lock()
	m.begun = append(m.begun, c)
	m.mu.Unlock()
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets++
	data, ok := m.blocks[c]
	if !ok {
		return nil, ipfs.ErrNotFound
	}
	return data, nil
}

func (m *memory) Has(_ context.Context, c cid.Cid) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blocks[c]
	return ok, nil
}

func (m *memory) Form(c cid.Cid) ([]byte, int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	frame, ok := m.forms[c]
	return frame, m.sizes[c], ok
}

func (m *memory) Keep(c cid.Cid, frame []byte, size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forms[c], m.sizes[c] = frame, size
}

func newCodec(t testing.TB) *Codec {
	t.Helper()
	c, err := NewCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// session is a client of a server over a pipe.
type session struct {
	*Client
	received Received
	server   *Server
	frames   chan []Answer
}

// connect serves a store until the test ends.
func connect(t testing.TB, store *memory) *session {
	t.Helper()
	return connectTo(t, NewServer(store, store, newCodec(t)))
}

// connectTo has one more client of a server.
func connectTo(t testing.TB, server *Server) *session {
	t.Helper()
	near, far := net.Pipe()
	s := &session{server: server, frames: make(chan []Answer, MaxUnanswered)}
	s.Client = NewClient(near, server.codec, &s.received)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.server.Serve(t.Context(), pipe{far}); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log("serve:", err)
		}
	})
	wg.Go(func() {
		defer close(s.frames)
		if err := s.Receive(near, func(a []Answer) { s.frames <- a }); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Log("receive:", err)
		}
	})
	t.Cleanup(func() {
		near.Close()
		wg.Wait()
	})
	return s
}

func (s *session) want(t testing.TB, wants ...Want) {
	t.Helper()
	if err := s.Send(wants); err != nil {
		t.Fatal(err)
	}
}

// wants asks for blocks of one rank.
func wants(blocks []ipfs.Block, rank uint8) []Want {
	var out []Want
	for _, b := range blocks {
		out = append(out, Want{Cid: b.Cid, Rank: rank})
	}
	return out
}

// answers returns the next n answers, in their order, and the frames that they came in.
func (s *session) answers(t testing.TB, n int) (all []Answer, frames int) {
	t.Helper()
	for len(all) < n {
		a, ok := <-s.frames
		if !ok {
			t.Fatalf("the stream ended after %d of %d answers", len(all), n)
		}
		all = append(all, a...)
		frames++
	}
	return all, frames
}
