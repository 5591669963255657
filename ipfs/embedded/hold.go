package embedded

import (
	"cmp"
	"slices"
	"time"

	pb "github.com/ipfs/boxo/bitswap/message/pb"
)

// Where many machines get one image from one publisher at the same time, what each of them asks
// of it is what nobody else has yet. So where blocks are scattered a peer is asked for no more than
// it sends in owedTime, or leastOwed: the rest is held back, while those who have not got it
// say when they do. What is asked next is what the fewest have, and of that any: then the
// machines get different blocks from the publisher, and the rest from each other.

const (
	// leastOwed is how many bytes a peer may owe in any case.
	leastOwed = 256 << 10
	// owedTime is how much more than that it may: what it sends in that time, or in two round trips.
	owedTime = 250 * time.Millisecond
	// paceTime is how long the bytes of a peer are counted for its pace.
	paceTime = 100 * time.Millisecond
)

// pace is how fast a peer sends.
type pace struct {
	rate  float64 // bytes a second
	bytes int
	since time.Time
}

// came counts bytes.
func (p *pace) came(n int, now time.Time) {
	p.bytes += n
	took := now.Sub(p.since)
	if took < paceTime {
		return
	}
	if took < 10*paceTime { // it was not idle
		p.rate += (float64(p.bytes)/took.Seconds() - p.rate) / 2
	}
	p.bytes, p.since = 0, now
}

// owes notes that a peer is asked for a block.
func (r *remote) owes(w *want) {
	r.pending++
	r.owed += w.size
}

// owesNot notes that it is not any more.
func (r *remote) owesNot(w *want) {
	r.pending--
	r.owed -= w.size
	r.freed = true
}

// answers notes the time until it answered, after it was idle.
func (r *remote) answers(now time.Time) {
	if took := now.Sub(r.asked); !r.asked.IsZero() && (r.rtt == 0 || took < r.rtt) {
		r.rtt = took
	}
	r.asked = time.Time{}
}

// mayOwe is how many bytes a peer may owe where blocks are scattered.
func (r *remote) mayOwe() int64 {
	return max(leastOwed, int64(r.pace.rate*max(owedTime, 2*r.rtt).Seconds()))
}

// holds says whether a want is held back until a peer owes less.
func (x *exchange) holds(w *want, r *remote) bool {
	return x.scattered() && !w.urgent && r.speaks && r.pending > 0 && r.owed+w.size > r.mayOwe()
}

// setHeld notes for which peer a want is held back, or with nil that it is not.
func (x *exchange) setHeld(w *want, r *remote) {
	w.heldFor = r
	if r == nil {
		delete(x.held, w)
	} else {
		x.held[w] = struct{}{}
	}
}

// fed says whether a want that is held back will be asked of a peer that has it.
func (x *exchange) fed(w *want, now time.Time) bool {
	return x.scattered() && slices.ContainsFunc(w.answers, func(a answer) bool {
		return a.state == stateHas && a.remote.pending > 0 && a.remote.speaks && now.After(a.remote.silent.until)
	})
}

// feedFreed feeds the peers that owe less than before.
func (x *exchange) feedFreed() {
	for _, r := range x.remotes {
		if r.freed {
			x.feed(r)
		}
	}
}

// feed asks a peer for what was held back and it has, if it owes little.
func (x *exchange) feed(r *remote) {
	if len(x.held) == 0 || r.gone || !r.speaks || r.owed > r.mayOwe()/2 || time.Now().Before(r.silent.until) {
		return
	}
	r.freed = false
	type candidate struct {
		*want
		others int // that have it
	}
	var list []candidate // in any order, as the map is
	for w := range x.held {
		has, others := false, 0
		for _, a := range w.answers {
			switch {
			case a.state != stateHas:
			case a.remote == r:
				has = true
			default:
				others++
			}
		}
		if has {
			list = append(list, candidate{w, others})
		}
	}
	slices.SortStableFunc(list, func(a, b candidate) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.others, b.others))
	})
	for _, c := range list {
		if r.pending > 0 && r.owed+c.size > r.mayOwe() {
			return
		}
		x.askPeer(c.want, r)
	}
}

// askNews asks a peer that speaks our protocol again for news of what it had not got: it does not know any
// more that it was asked.
func (x *exchange) askNews(r *remote) {
	if !x.scattered() {
		return
	}
	for _, w := range x.wants {
		if w.state(r) == stateDenied {
			r.push(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Have, news: true})
		}
	}
}
