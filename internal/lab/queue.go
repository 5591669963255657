package lab

import (
	"context"
	"sync"
	"time"
)

const (
	chunkSize = 64 << 10
	// maxQueued bounds the bytes on their way in one direction of a connection. It is
	// what 10 Gbit/s put on a way of 26 ms.
	maxQueued = 32 << 20
)

// A chunk is what one read returned.
type chunk struct {
	due    time.Time // when it is to be sent
	data   []byte
	end    error   // what ended the reading after data, if anything did
	buffer *[]byte // that data is in, if it goes back to the pool
}

// A queue goes from one goroutine to another. It is bounded by the bytes in it: a
// channel is by the number of its elements, and these have a byte or thousands.
type queue struct {
	mu     sync.Mutex
	chunks []chunk
	bytes  int

	filled, emptied chan struct{} // something was put in, or taken out, since the last look
}

func newQueue() *queue {
	return &queue{filled: make(chan struct{}, 1), emptied: make(chan struct{}, 1)}
}

// push waits for room, and puts c at the end.
func (q *queue) push(ctx context.Context, c chunk) error {
	for !q.tryPush(c) {
		select {
		case <-q.emptied:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// pop waits for a chunk, and takes the first.
func (q *queue) pop(ctx context.Context) (chunk, error) {
	for {
		if c, ok := q.tryPop(); ok {
			return c, nil
		}
		select {
		case <-q.filled:
		case <-ctx.Done():
			return chunk{}, ctx.Err()
		}
	}
}

func (q *queue) tryPush(c chunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes >= maxQueued {
		return false
	}
	q.chunks = append(q.chunks, c)
	q.bytes += len(c.data)
	tell(q.filled)
	return true
}

func (q *queue) tryPop() (chunk, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.chunks) == 0 {
		return chunk{}, false
	}
	c := q.chunks[0]
	q.chunks[0] = chunk{} // append moves what follows, and this would be kept
	q.chunks = q.chunks[1:]
	q.bytes -= len(c.data)
	tell(q.emptied)
	return c, true
}

// tell wakes the other goroutine, or the next time that it is about to wait.
func tell(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
