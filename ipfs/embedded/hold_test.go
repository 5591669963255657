package embedded

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// sent are the answers of a peer that sends blocks.
func sent(blocks ...ipfs.Block) (answers []transfer.Answer) {
	for _, b := range blocks {
		answers = append(answers, transfer.Answer{Cid: b.Cid, State: transfer.Sent, Block: b})
	}
	return answers
}

// wantedOf returns the blocks that a peer is asked for now, of a list.
func (x *exchange) wantedOf(r *remote, list []ipfs.Block) (blocks []ipfs.Block) {
	wanted := map[string]bool{}
	for _, w := range x.takeWants(r) {
		if !w.Have && !w.Cancel {
			wanted[w.Cid.KeyString()] = true
		}
	}
	for _, b := range list {
		if wanted[b.Cid.KeyString()] {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// newSwarm makes an exchange with a peer that has all of a list and two that have nothing yet, which is
// known of them; all blocks are wanted as some of many.
func newSwarm(t *testing.T, size int64) (x *exchange, publisher, other *remote, list []ipfs.Block) {
	t.Helper()
	x = newTestExchange(t)
	var peers []*remote
	for _, id := range []peer.ID{"publisher", "other", "third"} {
		peers = append(peers, x.joinSpeaker(id))
	}
	publisher, other = peers[0], peers[1]
	x.missing, x.scarcity = 1, true
	list = ipfstest.Blocks(t, 40, 100)
	for _, b := range list {
		x.mustWant(t, b, order{patient: true, bulk: true, size: size})
	}
	for range 10 { // until nothing changes
		for _, r := range peers {
			wants := x.takeWants(r)
			for _, w := range wants {
				state := transfer.Absent
				switch {
				case w.Cancel, r == publisher && !w.Have:
					continue
				case r == publisher:
					state = transfer.Here
				}
				x.answered(r, []transfer.Answer{{Cid: w.Cid, State: state}})
			}
		}
	}
	return x, publisher, other, list
}

// TestHold finds that a peer that alone has blocks is asked for few of them, and for more as they
// come; and that one that gets some of them is asked for those.
func TestHold(t *testing.T) {
	x, publisher, other, list := newSwarm(t, leastOwed/4)
	if publisher.owed != leastOwed || publisher.pending != 4 || len(x.held) != len(list)-4 {
		t.Fatalf("it owes %d bytes, %d blocks; %d are held back", publisher.owed, publisher.pending, len(x.held))
	}
	var owed, held []ipfs.Block
	for _, b := range list {
		if x.wants[b.Cid].heldFor != nil {
			held = append(held, b)
		} else {
			owed = append(owed, b)
		}
	}
	// The other has got one that is held back: it is asked for it, and it alone.
	x.answered(other, here(held[0]))
	if got := x.wantedOf(other, list); len(got) != 1 || got[0].Cid != held[0].Cid || publisher.pending != 4 {
		t.Errorf("who has got a block is asked for %d, who has all owes %d", len(got), publisher.pending)
	}
	x.answered(publisher, sent(owed[0]))
	if got := x.wantedOf(publisher, list); len(got) != 0 {
		t.Errorf("one block has come, and %d more are asked for", len(got))
	}
	// Of what is left, what others have too comes last.
	x.answered(other, here(held[1]))
	x.takeWants(other)
	x.answered(publisher, sent(owed[1]))
	got := x.wantedOf(publisher, list)
	if len(got) != 2 || publisher.owed != leastOwed {
		t.Errorf("half has come, and %d more are asked for: it owes %d bytes", len(got), publisher.owed)
	}
	for _, b := range got {
		if b.Cid == held[0].Cid || b.Cid == held[1].Cid {
			t.Error("a block that another has is asked of who has all")
		}
	}
	if len(x.held) != len(list)-4-2-2 {
		t.Errorf("%d are held back", len(x.held))
	}
}

// TestHeldAndUrgent has somebody wait for a block that is held back, alone.
func TestHeldAndUrgent(t *testing.T) {
	x, publisher, _, list := newSwarm(t, leastOwed/2)
	for _, b := range list {
		if x.wants[b.Cid].heldFor == nil {
			continue
		}
		x.mustWant(t, b, order{patient: true, rank: ipfs.Demanded})
		if got := x.wantedOf(publisher, list); len(got) != 1 || got[0].Cid != b.Cid || len(x.held) != len(list)-3 {
			t.Errorf("%d blocks are asked for, %d are held back", len(got), len(x.held))
		}
		return
	}
	t.Error("nothing is held back")
}

// TestHeldAndGone has the peer go that has all: what was held back is asked of who comes then.
func TestHeldAndGone(t *testing.T) {
	x, publisher, _, list := newSwarm(t, leastOwed/4)
	x.disconnected(publisher.id)
	x.tend(time.Now())
	next := x.joinSpeaker("next")
	x.tend(time.Now())
	for range 2 * len(list) {
		for _, b := range x.wantedOf(next, list) {
			x.answered(next, sent(b))
		}
		x.tend(time.Now())
	}
	if len(x.wants) > 0 || len(x.held) > 0 {
		t.Errorf("%d blocks are still wanted, %d held back", len(x.wants), len(x.held))
		for _, w := range x.wants {
			t.Log(x.tried(w))
		}
	}
}

// TestPace finds how much a peer may owe.
func TestPace(t *testing.T) {
	var r remote
	now := time.Now()
	r.pace.since = now
	if got := r.mayOwe(); got != leastOwed {
		t.Errorf("of a new peer: %d bytes", got)
	}
	for range 200 { // 100 MB/s
		now = now.Add(10 * time.Millisecond)
		r.pace.came(1e6, now)
	}
	if got := r.mayOwe(); got < 24e6 || got > 26e6 {
		t.Errorf("of one that sends 100 MB/s: %d bytes", got)
	}
	rate := r.pace.rate
	r.pace.came(1e6, now.Add(time.Hour))
	if r.pace.rate != rate {
		t.Error("a pause counts")
	}
}

// TestHeldAndNobody has the only peer go that has what is held back: that is looked for elsewhere, and is asked
// of all again.
func TestHeldAndNobody(t *testing.T) {
	x, publisher, _, list := newSwarm(t, leastOwed/4)
	var lacking []cid.Cid
	x.lack = func(blocks []cid.Cid) { lacking = append(lacking, blocks...) }
	x.disconnected(publisher.id)
	x.tend(time.Now().Add(stallTime / 2))
	if len(x.held) > 0 || len(lacking) != len(list) {
		t.Errorf("%d of %d blocks are held back, %d are looked for", len(x.held), len(list), len(lacking))
	}
}

// TestHeldForLong finds that what is held back for a peer that sends does not fail, and that it
// does if that sends nothing.
func TestHeldForLong(t *testing.T) {
	x, publisher, _, list := newSwarm(t, leastOwed/4)
	later := time.Now().Add(x.timeout + time.Minute)
	publisher.lastIn = later
	x.tend(later)
	if len(x.wants) != len(list) {
		t.Errorf("%d of %d are wanted still", len(x.wants), len(list))
	}
	later = later.Add(x.timeout)
	x.tend(later)
	x.tend(later)
	if len(x.wants) > 0 {
		t.Errorf("%d are wanted though nobody sends", len(x.wants))
	}
}

// TestBrokenWord has a peer say again and again that it has a block, and not give it: it is not asked
// for it again at once, and for others after those who keep their word.
func TestBrokenWord(t *testing.T) {
	x, publisher, other, list := newSwarm(t, leastOwed/4)
	var b ipfs.Block
	for w := range x.held {
		b = ipfs.Block{Cid: w.cid}
	}
	asked := 0
	for range 20 {
		x.answered(other, here(b))
		for _, w := range x.takeWants(other) {
			if w.Cid == b.Cid && !w.Have && !w.Cancel {
				asked++
				x.answered(other, absent(b))
			}
		}
	}
	if asked != 1 {
		t.Errorf("it is asked %d times for what it does not give", asked)
	}
	now := time.Now()
	other.pending, publisher.pending, other.broken = 1, 4, 4
	if other.cost(stateHas, now) < publisher.cost(stateHas, now) {
		t.Error("who breaks its word is asked before who owes more")
	}
	other.pending, publisher.pending = 0, len(list[:4])
}

// TestHeldAtRandom lets peers come, go, say and send what they may, in any order: what is owed and held
// back adds up at any time, and in the end all has come.
func TestHeldAtRandom(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		x := newTestExchange(t)
		x.missing, x.scarcity = 1, true
		list := ipfstest.Blocks(t, 60, 100)
		byCid := map[cid.Cid]ipfs.Block{}
		for _, b := range list {
			byCid[b.Cid] = b
		}
		var outs []chan result
		type question struct {
			*remote
			transfer.Want
		}
		var open []question
		has := func(r *remote, c cid.Cid) bool {
			return r.id == "all" || int(c.Hash()[5])%4 == int(r.id[0])%4
		}
		peers := map[peer.ID]*remote{}
		names := []peer.ID{"all", "b", "c", "d", "e"}
		for step := range 4000 {
			x.missing, x.scarcity = 1, true
			switch n := r.IntN(100); {
			case n < 3 && step < 3000:
				name := names[r.IntN(len(names))]
				if p := peers[name]; p != nil {
					x.disconnected(name)
					delete(peers, name)
				} else {
					peers[name] = x.joinSpeaker(name)
				}
			case n < 10 && len(outs) < len(list):
				how := order{patient: true, bulk: r.IntN(10) > 0, size: int64(r.IntN(leastOwed))}
				outs = append(outs, x.mustWant(t, list[len(outs)], how))
			case n < 12:
				x.tend(time.Now())
			case n < 14 && len(outs) > 0:
				i := r.IntN(len(outs)) // somebody else wants it too, alone
				if x.wants[list[i].Cid] != nil {
					x.mustWant(t, list[i], order{patient: true, rank: ipfs.Demanded})
				}
			case len(open) > 0:
				i := r.IntN(len(open))
				q := open[i]
				open = append(open[:i], open[i+1:]...)
				a := transfer.Answer{Cid: q.Cid, Asked: q.Have, State: transfer.Absent}
				if has(q.remote, q.Cid) {
					if a.State = transfer.Here; !q.Have {
						a.State, a.Block = transfer.Sent, byCid[q.Cid]
					}
				}
				x.answered(q.remote, []transfer.Answer{a})
			}
			for _, p := range peers {
				for _, w := range x.takeWants(p) {
					if !w.Cancel {
						open = append(open, question{p, w})
					}
				}
			}
			checkHeld(t, x)
			if step == 3000 && peers["all"] == nil {
				peers["all"] = x.joinSpeaker("all")
			}
		}
		for len(open) > 0 || len(x.wants) > 0 {
			x.tend(time.Now())
			for _, p := range peers {
				for _, w := range x.takeWants(p) {
					if !w.Cancel {
						open = append(open, question{p, w})
					}
				}
			}
			if len(open) == 0 && len(x.wants) > 0 {
				for _, w := range x.wants {
					t.Log(x.tried(w), w.heldFor)
				}
				t.Fatalf("seed %d: %d blocks are wanted, and nobody is asked", seed, len(x.wants))
			}
			for _, q := range open {
				a := transfer.Answer{Cid: q.Cid, Asked: q.Have, State: transfer.Absent}
				if has(q.remote, q.Cid) {
					if a.State = transfer.Here; !q.Have {
						a.State, a.Block = transfer.Sent, byCid[q.Cid]
					}
				}
				x.answered(q.remote, []transfer.Answer{a})
				checkHeld(t, x)
			}
			open = nil
		}
	}
}

// checkHeld finds that what the peers owe is what they were asked for, and that nobody is asked for
// what is held back.
func checkHeld(t *testing.T, x *exchange) {
	t.Helper()
	owed, pending, held := map[*remote]int64{}, map[*remote]int{}, 0
	for _, w := range x.wants {
		for _, a := range w.answers {
			if a.state == stateAsked {
				owed[a.remote] += w.size
				pending[a.remote]++
			}
		}
		if w.heldFor != nil {
			held++
			if _, ok := x.held[w]; !ok || w.pendingAt() || x.remotes[w.heldFor.id] != w.heldFor {
				t.Fatalf("a block is held back and is not: %v", x.tried(w))
			}
		}
	}
	if held != len(x.held) {
		t.Fatalf("%d blocks are held back, %d noted", held, len(x.held))
	}
	for _, r := range x.remotes {
		if r.owed != owed[r] || r.pending != pending[r] {
			t.Fatalf("%s owes %d bytes of %d blocks, noted are %d and %d", r.id, owed[r], pending[r], r.owed, r.pending)
		}
	}
}
