package embedded

import (
	"context"
	"slices"
	"sync"
	"time"

	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// stallTime is how long a peer that owes blocks may send none before others are
	// asked as well.
	stallTime = 2 * time.Second
	// firstRetry is when a want is sent again to those who have it already, or said
	// no. The delay then doubles.
	firstRetry = 2 * time.Second
	watchEvery = 250 * time.Millisecond
	// slowBlock is how long the bytes of one block may take to come, each soon after the last.
	slowBlock = 5 * stallTime
	// maxRecent bounds each half of the set of wants that are over.
	maxRecent = 8192
)

// answerState is what became of a want at one peer.
type answerState string

const (
	stateUnknown answerState = "not asked"
	stateProbed  answerState = "asked whether it has it"
	stateHas     answerState = "says it has it"
	stateAsked   answerState = "asked, no answer"
	stateDenied  answerState = "does not have it"
)

type answer struct {
	remote  *remote
	state   answerState
	since   time.Time
	served  uint64 // blocks the peer had served when it was asked
	bitswap bool   // it has the want in its wantlist; see exchange.take
	has     bool   // it said so
	broken  bool   // it said so, and then that it has not
}

// want is a block that somebody waits for. Guarded by exchange.mu.
type want struct {
	order
	cid     cid.Cid
	created time.Time
	waiters []chan<- result
	lacks   []func(cid.Cid) // told when nobody who was asked has it
	answers []answer

	retryAt    time.Time
	retryDelay time.Duration
	urgent     bool    // it is not one of many for all who wait
	heldFor    *remote // nobody is asked for it until this peer, or another who has it, owes less
}

// result is what a waiter gets.
type result struct {
	cid   cid.Cid
	block ipfs.Block
	store *sync.Once // shared by all waiters, for the one that stores the block
	err   error
}

// answer returns what became of the want at r, or nil if it was not asked.
func (w *want) answer(r *remote) *answer {
	for i := range w.answers {
		if w.answers[i].remote == r {
			return &w.answers[i]
		}
	}
	return nil
}

func (w *want) state(r *remote) answerState {
	if a := w.answer(r); a != nil {
		return a.state
	}
	return stateUnknown
}

func (w *want) set(r *remote, state answerState, now time.Time) {
	a := answer{remote: r, state: state, since: now, served: r.served, has: state == stateHas}
	if old := w.answer(r); old != nil {
		a.bitswap, a.has = old.bitswap, old.has && state != stateDenied || a.has
		a.broken = old.broken || old.has && state == stateDenied
		*old = a
		return
	}
	w.answers = append(w.answers, a)
}

// hurry makes the want as urgent as that, and tells the peers that are asked for it.
func (w *want) hurry(how order) {
	if how.rank >= w.rank {
		return
	}
	w.rank, w.priority = how.rank, how.priority
	for _, a := range w.answers {
		e := wantEntry{order: w.order, kind: pb.Message_Wantlist_Block}
		switch {
		case a.state != stateAsked:
		case a.bitswap:
			a.remote.pushBitswap(w.cid, e)
		default:
			a.remote.push(w.cid, e)
		}
	}
}

// drop forgets what r said.
func (w *want) drop(r *remote) {
	for i := range w.answers {
		if w.answers[i].remote == r {
			w.answers = append(w.answers[:i], w.answers[i+1:]...)
			return
		}
	}
}

// pendingAt says whether some peer was asked for the block and has not answered.
func (w *want) pendingAt() bool {
	for _, a := range w.answers {
		if a.state == stateAsked {
			return true
		}
	}
	return false
}

// someHas says whether some peer said that it has the block.
func (w *want) someHas() bool {
	return slices.ContainsFunc(w.answers, func(a answer) bool { return a.state == stateHas })
}

// undecided says whether some peer may still say that it has the block.
func (w *want) undecided() bool {
	for _, a := range w.answers {
		if a.state != stateDenied {
			return true
		}
	}
	return false
}

// stalled says whether all who were asked for the block keep it back: they send
// nothing, or have sent more than could have been asked for before it.
func (w *want) stalled(now time.Time) bool {
	if w.heldFor != nil {
		return false
	}
	for _, a := range w.answers {
		if a.state != stateAsked {
			continue
		}
		if now.Sub(latest(a.since, a.remote.lastSent(now))) < stallTime && !a.passedOver() {
			return false
		}
	}
	return true
}

// progress returns when there last was reason to think that the block will come.
func (w *want) progress() time.Time {
	t := w.created
	for _, a := range w.answers {
		if a.state == stateAsked && !a.passedOver() {
			t = latest(t, a.remote.lastIn)
		}
	}
	if w.heldFor != nil { // it comes when what was asked for before has come
		t = latest(t, w.heldFor.lastIn)
	}
	return t
}

func (a answer) passedOver() bool { return a.remote.served-a.served > maxWants }

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// blame makes peers that keep the block back the last to be asked for others.
func (x *exchange) blame(w *want, now time.Time) {
	for _, a := range w.answers {
		if a.state == stateAsked && now.Sub(a.since) >= stallTime {
			a.remote.misses = maxMisses
			x.silence(a.remote, a.remote.silent.again(now))
		}
	}
}

// watch looks after wants that stall, as long as there are wants.
func (x *exchange) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-x.wake:
		}
		for x.tend(time.Now()) {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}
}

// tend moves every want on, and returns whether there are any.
func (x *exchange) tend(now time.Time) bool {
	x.mu.Lock()
	for _, r := range x.remotes {
		x.feed(r)
	}
	nobody := false
	var lacking []cid.Cid
	for _, w := range x.wants {
		x.tendWant(w, now)
		nobody = nobody || len(w.answers) == 0
		if len(lacking) < maxLookups && w.stalled(now) {
			lacking = append(lacking, w.cid)
		}
	}
	more := len(x.wants) > 0
	x.mu.Unlock()
	if nobody {
		x.demand()
	}
	if len(lacking) > 0 {
		x.lack(lacking)
	}
	return more
}

func (x *exchange) tendWant(w *want, now time.Time) {
	if now.Sub(w.progress()) >= x.timeout {
		x.fail(w, nil)
		return
	}
	if w.heldFor != nil && (x.fed(w, now) || x.ask(w)) {
		x.probe(w) // who has got it by now?
		return
	}
	if w.stalled(now) && x.ask(w) {
		x.blame(w, now)
		return
	}
	if now.Before(w.retryAt) {
		return
	}
	w.retryDelay *= 2
	w.retryAt = now.Add(w.retryDelay)
	if !w.stalled(now) {
		return
	}
	// Nobody is left: ask all again. A peer may have got the block, or lost our want.
	for _, a := range w.answers {
		x.askAgain(w, a)
	}
}

// askAgain keeps the time and count of the first ask, by which silence is measured.
func (x *exchange) askAgain(w *want, a answer) {
	x.askPeer(w, a.remote)
	if now := w.answer(a.remote); a.state == stateAsked && now != nil {
		a.bitswap = now.bitswap
		*now = a
	}
}

// recentSet remembers some thousand wants that are over, so that a block that
// comes twice is not held against the peer.
type recentSet struct{ young, old map[cid.Cid]struct{} }

func (s *recentSet) add(c cid.Cid) {
	if s.young == nil || len(s.young) >= maxRecent {
		s.young, s.old = make(map[cid.Cid]struct{}), s.young
	}
	s.young[c] = struct{}{}
}

func (s *recentSet) has(c cid.Cid) bool {
	_, young := s.young[c]
	_, old := s.old[c]
	return young || old
}
