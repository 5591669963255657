package origin

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// Who is asked first follows from what it has cost lately: how long it took until something came, and how fast more did. Peers are free, and a
// registry is its owner's: so it is asked first only if peers take several times as long. Then peers are measured again now and then, with
// something that somebody waits for; what nobody waits for is wanted of them all the time.
const (
	// dear is how many times as long as the registry peers may take, and costSlack how much longer anyhow.
	dear      = 3
	costSlack = 20 * time.Millisecond
	// freshTime is for how long a measurement of the registry says something. Without one it is asked for what peers did not bring in unmeasured,
	// and for maxRange of what nobody waits for, if that is leastMeasured or more, unless peers bring fastEnough, in bytes a second.
	freshTime     = 5 * time.Minute
	unmeasured    = 500 * time.Millisecond
	leastMeasured = 1 << 20
	fastEnough    = 10 << 20
	// measureAgain is after how long peers that were too slow are asked first once.
	measureAgain = 10 * time.Second
	// The rate is measured over rateTime, or over rateBytes if that is less, or until the request was given up.
	rateTime  = time.Second
	rateBytes = 256 << 10
	// costMemory is how many measurements the averages go over, and guess the size of a block that nobody knows.
	costMemory = 8
	guess      = 64 << 10
)

// A meter measures what a source costs.
type meter struct {
	mu      sync.Mutex
	latency average // seconds from the request for blocks to the first of them
	rate    average // bytes a second of all requests together, while one of them is being answered
	came    int64   // bytes
	last    time.Time
}

// average is a moving one. What was measured before measureAgain says little of now: it counts until something is measured again.
type average struct {
	value float64
	n     int
	last  time.Time
}

func (a *average) add(v float64, now time.Time) {
	if now.Sub(a.last) > measureAgain {
		a.n = 0
	}
	a.last = now
	a.n++
	a.value += (v - a.value) / float64(min(a.n, costMemory))
}

// cost is how long so many bytes take. It is not known as long as nothing came.
func (m *meter) cost(bytes int64) (d time.Duration, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	seconds := m.latency.value
	if m.rate.n > 0 {
		seconds += float64(bytes) / max(m.rate.value, 1)
	}
	return time.Duration(seconds * float64(time.Second)), m.latency.n > 0
}

// speed is the rate in bytes a second, 0 as long as it is not known, and whether it was measured lately.
func (m *meter) speed() (rate float64, fresh bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rate.value, time.Since(m.rate.last) < freshTime
}

// measured is when something was measured last.
func (m *meter) measured() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// fetch has blocks from a source, and measures it. Blocks that are here say nothing of it.
func (m *meter) fetch(ctx context.Context, from ipfs.Fetcher, cids []cid.Cid, fn func(ipfs.Block) error) error {
	t := trial{meter: m, began: time.Now()}
	err := from.Fetch(ctx, cids, func(b ipfs.Block) error {
		if b.From != "" && b.From != fromNode {
			t.brought(len(b.Data))
		}
		return fn(b)
	})
	t.end(ctx)
	return err
}

// A trial is one request. The meter's mutex guards it.
type trial struct {
	*meter
	began time.Time
	since time.Time // when the rate was measured last; zero: nothing has come
	from  int64     // bytes that had come then
}

func (t *trial) brought(bytes int) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.came, t.last = t.came+int64(bytes), now
	if t.since.IsZero() {
		t.latency.add(now.Sub(t.began).Seconds(), now)
		t.since, t.from = now, t.came
		return
	}
	if now.Sub(t.since) >= rateTime {
		t.measureLocked(now)
	}
}

func (t *trial) measureLocked(now time.Time) {
	if d := now.Sub(t.since).Seconds(); d > 0 {
		t.rate.add(float64(t.came-t.from)/d, now)
	}
	t.since, t.from = now, t.came
}

// end measures what is left. A request that was ended before anything came says that it takes longer: it is taken to take twice as long.
func (t *trial) end(ctx context.Context) {
	now, overtaken := time.Now(), errors.Is(context.Cause(ctx), errOvertaken)
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.since.IsZero():
		least := 2 * now.Sub(t.began).Seconds()
		if overtaken && least > t.latency.value {
			t.latency.add(least, now)
			t.last = now
		}
	case t.came-t.from >= rateBytes, overtaken && now.Sub(t.since) >= demandPatience:
		t.measureLocked(now)
	}
}

// errOvertaken ends requests that took too long, or whose blocks came from elsewhere.
var errOvertaken = errors.New("it came from elsewhere, or took too long")

// ranking says who is asked first.
type ranking struct {
	peers, origin meter

	mu    sync.Mutex
	again time.Time // when peers were measured last though they are slow
}

// originFirst says whether peers take so much longer for so many bytes that the origin is asked first.
func (r *ranking) originFirst(bytes int64) bool {
	peers, known := r.peers.cost(bytes)
	origin, compared := r.origin.cost(bytes)
	if !known || !compared || peers <= dear*origin+costSlack {
		return false
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.peers.measured()) > measureAgain && now.Sub(r.again) > measureAgain {
		r.again = now // one request does for all
		return false
	}
	return true
}

// limit is how long peers may take for so many bytes that somebody waits for, though they come without a pause.
func (r *ranking) limit(bytes int64) time.Duration {
	d, known := r.origin.cost(bytes)
	if !known || time.Since(r.origin.measured()) > freshTime {
		return unmeasured
	}
	return max(dear*d+costSlack, demandPatience)
}

// peersSlow says whether peers bring much less than the origin could, and unsure whether that is not known, and would matter.
func (r *ranking) peersSlow() (slow, unsure bool) {
	peers, known := r.peers.speed()
	origin, fresh := r.origin.speed()
	if !known || peers == 0 {
		return false, false
	}
	return fresh && origin > dear*peers, !fresh && peers < fastEnough
}

// sizeOf estimates the bytes of some blocks.
func sizeOf(ctx context.Context, blocks int) int64 {
	size := ipfs.BlockSizeOf(ctx)
	if size == 0 {
		size = guess
	}
	return int64(blocks) * size
}
