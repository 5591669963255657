package transfer

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// buffered is how many bytes a stream may take faster than its peer: what fits into the
	// buffers between.
	buffered = 4 << 20
	// paceMemory is how many bytes count, roughly.
	paceMemory = 32 << 20
	// assumedSpeed of compressing, in bytes a second, until there was something to measure.
	assumedSpeed = 200e6
)

// pace measures how fast a stream takes bytes, when there is no end of them: from buffered
// bytes after nothing was to be sent until that is so again.
type pace struct {
	mu    sync.Mutex
	run   int64 // bytes since nothing was to be sent
	bytes int64
	took  time.Duration // of writing these
}

func (p *pace) idled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.run = 0
}

func (p *pace) wrote(n int, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.run += int64(n); p.run < buffered {
		return
	}
	p.bytes += int64(n)
	p.took += took
	if p.bytes > paceMemory {
		p.bytes, p.took = p.bytes/2, p.took/2
	}
}

// slowerThan says whether the stream takes fewer bytes a second than that, as far as known.
func (p *pace) slowerThan(speed float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes < buffered || float64(p.bytes) < speed*p.took.Seconds()
}

// speed is how fast something is done.
type speed struct{ bytes, nanos atomic.Int64 }

func (s *speed) did(n int, took time.Duration) {
	if s.bytes.Add(int64(n)) > paceMemory {
		s.bytes.Store(s.bytes.Load() / 2)
		s.nanos.Store(s.nanos.Load() / 2)
	}
	s.nanos.Add(int64(took))
}

// perSecond returns bytes a second.
func (s *speed) perSecond() float64 {
	bytes, nanos := s.bytes.Load(), s.nanos.Load()
	if bytes < paceMemory/32 || nanos <= 0 {
		return assumedSpeed
	}
	return float64(bytes) / (float64(nanos) / 1e9)
}
