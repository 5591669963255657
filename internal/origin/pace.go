package origin

import (
	"sync"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// What nobody waits for is read in requests that take about rangeTime, and have leastRange or more: the link is not given
	// away for long, and neither is what another machine may have by then.
	leastRange = 512 << 10
	rangeTime  = 500 * time.Millisecond
	// paceMemory is how many requests the averages go over.
	paceMemory = 8
)

// A pace is how fast requests for frames are answered.
type pace struct {
	mu       sync.Mutex
	rate     float64 // bytes a second that one request brings, a moving average
	took     float64 // seconds that one takes, the same
	underWay map[*time.Time]struct{}
}

// begin notes a request. end must be called with the bytes that it has brought.
func (p *pace) begin() (end func(bytes int64)) {
	began := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.underWay == nil {
		p.underWay = map[*time.Time]struct{}{}
	}
	p.underWay[&began] = struct{}{}
	return func(bytes int64) {
		took := time.Since(began).Seconds()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.underWay, &began)
		p.took += (took - p.took) / paceMemory
		if bytes >= leastRange/4 && took > 0 {
			p.rate += (float64(bytes)/took - p.rate) / paceMemory
		}
	}
}

// rangeOf is how much one request of a rank reads.
func (p *pace) rangeOf(rank ipfs.Rank) int64 {
	if rank <= ipfs.Ahead {
		return maxRange
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return min(max(int64(p.rate*rangeTime.Seconds()), leastRange), maxRange)
}

// longest is how long a request takes, or has been under way.
func (p *pace) longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	longest := time.Duration(p.took * float64(time.Second))
	for began := range p.underWay {
		longest = max(longest, time.Since(*began))
	}
	return longest
}
