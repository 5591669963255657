package embedded

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// asked sorts the peers by what they are sent for one block.
func asked(x *exchange, b ipfs.Block, peers []*remote) (block, have, cancel []*remote) {
	for _, r := range peers {
		for _, w := range x.takeWants(r) {
			switch {
			case w.Cid != b.Cid:
			case w.Cancel:
				cancel = append(cancel, r)
			case w.Have:
				have = append(have, r)
			default:
				block = append(block, r)
			}
		}
	}
	return block, have, cancel
}

func here(b ipfs.Block) []transfer.Answer {
	return []transfer.Answer{{Cid: b.Cid, State: transfer.Here}}
}

// TestScattered has each block at one of three peers. When that is known, all are asked at once,
// one for the block, and who says that it has it is asked in place of who may not.
func TestScattered(t *testing.T) {
	x := newTestExchange(t)
	var peers []*remote
	for _, id := range []peer.ID{"a", "b", "c"} {
		peers = append(peers, x.joinSpeaker(id))
	}
	list := ipfstest.Blocks(t, 40, 100)
	for i, b := range list[:20] {
		x.mustWant(t, b, order{patient: true})
		block, have, _ := asked(x, b, peers)
		if len(block) != 1 || i == 0 && len(have) > 0 {
			t.Fatalf("of block %d, %d peers are asked for it and %d whether they have it", i, len(block), len(have))
		}
		x.answered(block[0], absent(b))
	}
	b := list[39]
	out := x.mustWant(t, b, order{patient: true})
	block, have, _ := asked(x, b, peers)
	if len(block) != 1 || len(have) != 2 {
		t.Fatalf("%d peers are asked for a block and %d whether they have it, want 1 and 2", len(block), len(have))
	}
	x.answered(have[1], here(b))
	again, _, cancelled := asked(x, b, peers)
	if !slices.Equal(again, have[1:]) || !slices.Equal(cancelled, block) {
		t.Errorf("it is wanted of %d more, and cancelled at %d", len(again), len(cancelled))
	}
	x.answered(block[0], absent(b)) // of what was cancelled
	x.answered(have[1], []transfer.Answer{{Cid: b.Cid, State: transfer.Sent, Block: b}})
	if res := <-out; res.err != nil {
		t.Error(res.err)
	}
	for range 400 {
		x.said(true)
	}
	x.mustWant(t, list[38], order{patient: true})
	if _, have, _ := asked(x, list[38], peers); len(have) > 0 {
		t.Error("all are asked though peers have what they are asked for")
	}
}

// TestRelieve has a peer that owes many blocks, and another that says that it has one of them.
func TestRelieve(t *testing.T) {
	x := newTestExchange(t)
	source := x.joinSpeaker("source")
	list := ipfstest.Blocks(t, leastTakenOver+2, 100)
	for _, b := range list {
		x.mustWant(t, b, order{patient: true})
	}
	x.takeWants(source)
	other := x.addRemote("other") // which does not ask for more by itself
	other.misses = maxMisses
	x.setSpeaks(other, new(transfer.Client))
	peers := []*remote{source, other}
	for i, b := range list {
		x.answered(other, here(b))
		block, _, cancelled := asked(x, b, peers)
		if moved := i == 0; moved != slices.Equal(block, peers[1:]) || moved != slices.Equal(cancelled, peers[:1]) {
			t.Errorf("block %d: %d peers are asked, %d no more, with %d and %d blocks to send",
				i, len(block), len(cancelled), source.pending, other.pending)
		}
	}
}

// TestWeight: of peers that speak bitswap alone fewer blocks are wanted at a time.
func TestWeight(t *testing.T) {
	x := newTestExchange(t)
	x.joinSpeaker("ours")
	if got := x.weight(); got != 1 {
		t.Errorf("a want counts as %d", got)
	}
	x.addRemote("bitswap")
	if got := x.weight(); got != bitswapWeight {
		t.Errorf("with a peer that speaks bitswap a want counts as %d", got)
	}
	b := ipfstest.Blocks(t, 1, 100)[0]
	out := x.mustWant(t, b, order{bulk: true, patient: true})
	x.disconnected("bitswap")
	x.forget(b.Cid, out)
	if !x.slots.TryAcquire(maxWants) || !x.bulk.TryAcquire(maxBulk) {
		t.Error("a want that is over gave back less than it took")
	}
	x.slots.Release(maxWants)
	x.bulk.Release(maxBulk)
}
