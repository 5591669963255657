package embedded

import (
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/libp2p/go-libp2p/core/peer"
)

func (x *exchange) receivedPresences(p peer.ID, presences []message.BlockPresence) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.remotes[p]
	if r == nil {
		return
	}
	for _, pr := range presences {
		w, ok := x.wants[pr.Cid]
		if !ok {
			continue
		}
		if pr.Type == pb.Message_Have {
			x.has(w, r)
		} else {
			x.denied(w, r, w.state(r) != stateAsked)
		}
	}
	x.feedFreed()
}

func (x *exchange) has(w *want, r *remote) {
	if a := w.answer(r); a != nil && (a.state == stateAsked || a.broken) {
		return // the block should follow, or did not before
	}
	x.said(true)
	w.set(r, stateHas, time.Now())
	x.relieve(w, r)
	x.next(w)
}

// denied takes that a peer has not got a block: as the answer to whether it has, or in place of it.
func (x *exchange) denied(w *want, r *remote, question bool) {
	a := w.answer(r)
	tells := r.speaks && x.scattered() // when it comes, if it is asked
	switch {
	case question && a != nil && (a.state == stateAsked || a.state == stateDenied):
		return // it was asked for the block since, and answers that, too; or for news
	case !question && a != nil && a.state == stateAsked:
		r.owesNot(w)
		r.misses++
		if a.has {
			r.broken++
			tells = false
		}
	}
	if !question && tells { // whoever was asked whether it has it tells by itself
		r.push(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Have, news: true})
	}
	x.said(false)
	w.set(r, stateDenied, time.Now())
	if !w.pendingAt() && x.next(w) && (!x.scattered() || !w.someHas()) {
		x.probe(w)
	}
}
