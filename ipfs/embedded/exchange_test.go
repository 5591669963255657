package embedded

import (
	"log/slog"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// newTestExchange returns an exchange without a network or goroutines: tests say what peers answer, take
// what they are sent, and tend it, so that nothing else touches what they look at.
func newTestExchange(t *testing.T) *exchange {
	t.Helper()
	x := newExchange(nil, nil, newPeerBook(time.Hour, nil, nil), time.Hour, slog.New(slog.DiscardHandler))
	t.Cleanup(x.close)
	return x
}

func (x *exchange) mustWant(t *testing.T, b ipfs.Block, how order) chan result {
	t.Helper()
	out := make(chan result, 1)
	if err := x.request(t.Context(), b.Cid, how, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// joinSpeaker connects a peer that speaks our protocol.
func (x *exchange) joinSpeaker(id peer.ID) *remote {
	r := x.addRemote(id)
	x.setSpeaks(r, new(transfer.Client))
	return r
}

// bitswapWants returns what a peer is sent over bitswap now: wants, and cancels.
func (x *exchange) bitswapWants(r *remote) (wants, cancels []cid.Cid) {
	for _, e := range x.take(r).Wantlist() {
		if e.Cancel {
			cancels = append(cancels, e.Cid)
		} else {
			wants = append(wants, e.Cid)
		}
	}
	return wants, cancels
}

func absent(b ipfs.Block) []transfer.Answer {
	return []transfer.Answer{{Cid: b.Cid, State: transfer.Absent}}
}

// TestRestAtPeersThatComeLater wants a block while there is nobody, and of two peers that come
// and do not have it. Each is to send it when it gets it, and is told when it is not wanted.
func TestRestAtPeersThatComeLater(t *testing.T) {
	x, b := newTestExchange(t), ipfstest.Blocks(t, 1, 100)[0]
	out := x.mustWant(t, b, order{patient: true})
	var peers []*remote
	for _, id := range []peer.ID{"first", "second"} {
		r := x.joinSpeaker(id)
		if got := x.takeWants(r); len(got) != 1 || got[0].Cancel {
			t.Fatalf("%s is asked for %v", id, got)
		}
		if wants, _ := x.bitswapWants(r); len(wants) != 0 {
			t.Errorf("%s is asked over bitswap, too", id)
		}
		x.answered(r, absent(b))
		if wants, _ := x.bitswapWants(r); len(wants) != 1 {
			t.Errorf("%s has %v in its wantlist after it said no", id, wants)
		}
		peers = append(peers, r)
	}
	x.forget(b.Cid, out)
	for _, r := range peers {
		if _, cancels := x.bitswapWants(r); len(cancels) != 1 {
			t.Errorf("%s is told that %v are not wanted", r.id, cancels)
		}
	}
}

// TestAnswersOfPeerThatIsGone takes the blocks of a peer that has hung up, and nothing else.
func TestAnswersOfPeerThatIsGone(t *testing.T) {
	for name, state := range map[string]transfer.State{"Here": transfer.Here, "Absent": transfer.Absent} {
		t.Run(name, func(t *testing.T) {
			x, list := newTestExchange(t), ipfstest.Blocks(t, 2, 100)
			r := x.joinSpeaker("gone")
			x.mustWant(t, list[0], order{patient: true})
			out := x.mustWant(t, list[1], order{patient: true})
			x.disconnected(r.id)
			x.answered(r, []transfer.Answer{
				{Cid: list[0].Cid, State: state}, {Cid: list[1].Cid, State: transfer.Sent, Block: list[1]},
			})
			if tried := x.tried(x.wants[list[0].Cid]); len(tried) != 0 {
				t.Errorf("what is gone still counts: %v", tried)
			}
			if res := <-out; res.err != nil || res.block.Cid != list[1].Cid {
				t.Errorf("the block that came: %v", res.err)
			}
		})
	}
}

// TestWantedWhilePeerConnects wants blocks of a peer before it is known that it speaks our
// protocol: they never go over bitswap, and may be taken over by another.
func TestWantedWhilePeerConnects(t *testing.T) {
	x, list := newTestExchange(t), ipfstest.Blocks(t, 2*leastTakenOver, 100)
	r := x.addRemote("slow")
	var outs []chan result
	for _, b := range list {
		outs = append(outs, x.mustWant(t, b, order{patient: true}))
	}
	x.setSpeaks(r, new(transfer.Client))
	if wants := x.takeWants(r); len(wants) != len(list) {
		t.Fatalf("%d wants go over our protocol, want all %d", len(wants), len(list))
	}
	x.joinSpeaker("idle")
	if got := r.pending; got != len(list)/2 {
		t.Errorf("%d of %d blocks were left to a peer when another came", got, len(list))
	}
	for i, b := range list {
		x.forget(b.Cid, outs[i])
	}
	if wants, cancels := x.bitswapWants(r); len(wants)+len(cancels) > 0 {
		t.Errorf("of what never went over bitswap, wants %v and cancels %v do", wants, cancels)
	}
}

// TestCancelsStayOnBitswap sends a peer the cancel of what it was asked for over bitswap there,
// though it speaks our protocol by then.
func TestCancelsStayOnBitswap(t *testing.T) {
	x, b := newTestExchange(t), ipfstest.Blocks(t, 1, 100)[0]
	r := x.addRemote("late")
	out := x.mustWant(t, b, order{patient: true})
	if wants, _ := x.bitswapWants(r); len(wants) != 1 {
		t.Fatalf("wants %v go over bitswap", wants)
	}
	x.forget(b.Cid, out)
	x.setSpeaks(r, new(transfer.Client))
	if _, cancels := x.bitswapWants(r); len(cancels) != 1 {
		t.Errorf("cancels %v go over bitswap, want the one of the block", cancels)
	}
}

// TestMoreUrgentRequestJoins wants a block for later and then at once, on both protocols.
func TestMoreUrgentRequestJoins(t *testing.T) {
	x, list := newTestExchange(t), ipfstest.Blocks(t, 2, 100)
	r := x.joinSpeaker("ours")
	for _, rank := range []ipfs.Rank{ipfs.Spare, ipfs.Demanded, ipfs.Planned} {
		x.mustWant(t, list[0], order{rank: rank, patient: true})
		switch got := x.takeWants(r); {
		case rank == ipfs.Planned && len(got) > 0:
			t.Errorf("it is wanted again as %v", got)
		case rank < ipfs.Planned && (len(got) != 1 || got[0].Rank != uint8(rank)), rank > ipfs.Planned && len(got) != 1:
			t.Errorf("rank %d: it is wanted as %v", rank, got)
		}
	}
	x.disconnected(r.id)
	x.mustWant(t, list[1], order{rank: ipfs.Spare, patient: true})
	other := x.addRemote("bitswap")
	x.take(other)
	x.mustWant(t, list[1], order{rank: ipfs.Demanded, patient: true})
	if got := x.take(other).Wantlist(); len(got) != 1 || got[0].Priority != 0 {
		t.Errorf("it is wanted over bitswap as %v", got)
	}
}
