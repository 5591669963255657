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
	// and, once in freshTime, for maxRange of what nobody waits for, if that is leastMeasured or more, unless peers bring fastEnough, in bytes a second.
	freshTime     = 5 * time.Minute
	unmeasured    = 500 * time.Millisecond
	leastMeasured = 1 << 20
	fastEnough    = 10 << 20
	// measureAgain is after how long peers that were too slow are asked first once.
	measureAgain = 10 * time.Second
	// The rate is measured over rateTime, or over rateBytes if that is less, or until the request was given up; large is what takes longer
	// on the way than to begin.
	rateTime  = time.Second
	rateBytes = 256 << 10
	large     = 128 << 10
	// costMemory is how many measurements the averages go over, and guess the size of a block that nobody knows.
	costMemory = 8
	guess      = 64 << 10
)

// A meter measures what a source costs, by bytes that were wanted of it.
type meter struct {
	mu      sync.Mutex
	latency average // seconds from a request to what comes first of it
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

// cost is how long so many bytes take, if enough is known of that.
func (m *meter) cost(bytes int64) (d time.Duration, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.rate.n == 0 {
		return seconds(m.latency.value), m.latency.n > 0 && bytes < large
	}
	return seconds(m.latency.value + float64(bytes)/max(m.rate.value, 1)), true
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

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

// A trial is one request. The meter's mutex guards it.
type trial struct {
	*meter
	began  time.Time
	lately time.Time // when something came last; zero: never
	since  time.Time // when the rate was measured last
	from   int64     // bytes that had come then
}

func (m *meter) begin() *trial { return &trial{meter: m, began: time.Now()} }

// brought notes what came. What is large takes its time on the way, which is not latency. After a long pause the rate is measured from there: it
// may have been somebody else's turn.
func (t *trial) brought(bytes int) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	first, from := t.lately.IsZero(), t.came
	t.came, t.last = t.came+int64(bytes), now
	switch {
	case first && bytes >= large:
		t.since, t.from = t.began, from
	case first:
		t.latency.add(now.Sub(t.began).Seconds(), now)
		t.since, t.from = now, t.came
	case now.Sub(t.lately) > rateTime:
		t.since, t.from = now, t.came
	}
	if t.lately = now; now.Sub(t.since) >= rateTime {
		t.measureLocked(now)
	}
}

func (t *trial) measureLocked(now time.Time) {
	if d := now.Sub(t.since).Seconds(); d > 0 {
		t.rate.add(float64(t.came-t.from)/d, now)
	}
	t.since, t.from = now, t.came
}

// end measures what is left. A request that was given up before anything came says that it takes longer: it is taken to take twice as long.
func (t *trial) end(givenUp bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.lately.IsZero():
		if least := 2 * now.Sub(t.began).Seconds(); givenUp && least > t.latency.value {
			t.latency.add(least, now)
			t.last = now
		}
	case givenUp && now.Sub(t.since) >= demandPatience:
		t.measureLocked(now)
	case t.came-t.from >= rateBytes:
		t.measureLocked(t.lately)
	}
}

// measuredPeers are peers whose cost is measured. What is here says nothing of it.
type measuredPeers struct {
	node  ipfs.Fetcher
	meter *meter
}

// Fetch implements ipfs.Fetcher.
func (p measuredPeers) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	t := p.meter.begin()
	err := p.node.Fetch(ctx, cids, func(b ipfs.Block) error {
		if b.From != "" && b.From != fromNode {
			t.brought(len(b.Data))
		}
		return fn(b)
	})
	t.end(errors.Is(context.Cause(ctx), errGivenUp))
	return err
}

// errGivenUp ends requests that took too long.
var errGivenUp = errors.New("it took too long")

// ranking says who is asked first.
type ranking struct {
	peers  meter
	origin *meter

	mu     sync.Mutex
	again  time.Time // when peers were measured last though they are slow
	failed time.Time // when the origin brought nothing
	probed time.Time // when it was measured with what peers would have brought
}

// originFirst says whether peers take so much longer for so many bytes that the origin is asked first.
func (r *ranking) originFirst(bytes int64) bool {
	now := time.Now()
	peers, known := r.peers.cost(bytes)
	origin, compared := r.origin.cost(bytes)
	if !known || !compared || now.Sub(r.origin.measured()) > freshTime || peers <= dear*origin+costSlack {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case now.Sub(r.failed) < measureAgain:
		return false
	case now.Sub(r.peers.measured()) > measureAgain && now.Sub(r.again) > measureAgain:
		r.again = now // one request does for all
		return false
	}
	return true
}

// originFailed notes that the origin brought nothing.
func (r *ranking) originFailed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = time.Now()
}

// limit is how long peers may take for so many bytes that somebody waits for, though they come without a pause.
func (r *ranking) limit(bytes int64) time.Duration {
	d, known := r.origin.cost(bytes)
	if !known || time.Since(r.origin.measured()) > freshTime {
		return unmeasured
	}
	return max(dear*d+costSlack, demandPatience)
}

// peersSlow says whether peers bring much less than the origin could.
func (r *ranking) peersSlow() bool {
	peers, _ := r.peers.speed()
	origin, fresh := r.origin.speed()
	return peers > 0 && fresh && origin > dear*peers
}

// probes says whether the origin is to be measured with something that peers would bring, since it is not known whether they are slow and
// it would matter. Who is told so does it.
func (r *ranking) probes() bool {
	peers, _ := r.peers.speed()
	_, fresh := r.origin.speed()
	if peers == 0 || peers >= fastEnough || fresh {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := time.Now(); now.Sub(r.probed) > freshTime {
		r.probed = now
		return true
	}
	return false
}

// sizeOf estimates the bytes of some blocks.
func sizeOf(ctx context.Context, blocks int) int64 {
	size := ipfs.BlockSizeOf(ctx)
	if size == 0 {
		size = guess
	}
	return int64(blocks) * size
}
