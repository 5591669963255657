package embedded

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	pb "github.com/ipfs/boxo/bitswap/message/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
)

const (
	// maxStreams bounds the streams on which one peer is served: one, and one that it has
	// given up without our knowing yet.
	maxStreams = 2
	// maxServed is how many streams of all peers are served. Beyond, the one that was idle for
	// the longest time is given up for a new one, and peers are refused only if there is none.
	maxServed = 128
	// openTimeout bounds how long it may take to find out whether a peer has the protocol.
	openTimeout = 10 * time.Second
	// reopenDelay is when that is tried again, or a stream that broke is replaced. From the
	// fourth time in a row it doubles up to maxReopenDelay. A row ends with a stream that lived
	// for steadyTime.
	reopenDelay    = 2 * time.Second
	quickReopens   = 3
	maxReopenDelay = 4 * time.Minute
	steadyTime     = time.Minute
	// leastTakenOver is how many blocks a peer must owe before another takes some of them over.
	leastTakenOver = 4
	// maxIdleMisses is how many blocks in a row a peer may not have had before it takes over no
	// others.
	maxIdleMisses = 4
)

// blockStreams opens and serves streams of our own protocol.
type blockStreams struct {
	host     host.Host
	book     *peerBook
	codec    *transfer.Codec
	source   *blockSource
	server   *transfer.Server
	received transfer.Received

	mu     sync.Mutex
	closed bool
	served map[peer.ID]int
	asked  map[peer.ID]time.Time // when those that are served asked last
	all    int
	wg     sync.WaitGroup
}

func newBlockStreams(h host.Host, book *peerBook, store offered, forms transfer.Forms, codec *transfer.Codec) *blockStreams {
	source := &blockSource{Store: store, offered: store}
	return &blockStreams{
		host: h, book: book, codec: codec, source: source, server: transfer.NewServer(source, forms, codec),
		served: map[peer.ID]int{}, asked: map[peer.ID]time.Time{},
	}
}

// start serves peers until ctx ends; wait for it with close.
func (b *blockStreams) start(ctx context.Context) {
	b.host.SetStreamHandler(transfer.ID, func(s network.Stream) { b.serve(ctx, s) })
}

// close waits for what is being served. The context of start has ended.
func (b *blockStreams) close() {
	b.host.RemoveStreamHandler(transfer.ID)
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.wg.Wait()
}

func (b *blockStreams) serve(ctx context.Context, s network.Stream) {
	p := s.Conn().RemotePeer()
	if !b.begin(p) {
		_ = s.Reset() // it may be over already
		return
	}
	defer b.end(p)
	// How it ends is the peer's business: it asks again, or another.
	_ = b.server.Serve(ctx, asking{s, func() { b.asks(p) }})
}

// begin says whether a peer may have one more stream.
func (b *blockStreams) begin(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.served[p] >= maxStreams || b.book.bannedFor(p) > 0 {
		return false
	}
	if b.all >= maxServed && !b.server.DropIdlest() {
		return false
	}
	b.served[p]++
	b.all++
	b.wg.Add(1)
	return true
}

func (b *blockStreams) end(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all--
	if b.served[p]--; b.served[p] == 0 {
		delete(b.served, p)
		delete(b.asked, p)
	}
	b.wg.Done()
}

// open opens a stream to a connected peer. The error is of a peer that does not speak the
// protocol, or is not there any more.
func (b *blockStreams) open(ctx context.Context, p peer.ID) (network.Stream, *transfer.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	s, err := b.host.NewStream(network.WithNoDial(ctx, "only peers that are connected"), p, transfer.ID)
	if err != nil {
		return nil, nil, err
	}
	return s, transfer.NewClient(deadlined{s}, b.codec, &b.received), nil
}

// deadlined gives up a peer that does not read what it is sent.
type deadlined struct{ network.Stream }

func (d deadlined) Write(b []byte) (int, error) {
	if err := d.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return 0, err
	}
	return d.Stream.Write(b)
}

// converse sends what is queued for a peer until ctx ends: over our protocol if it speaks that,
// and what is left over bitswap. Finding out waits for what bitswap would wait for as well. A peer
// that is just starting may not speak it yet, and a stream may break: both are tried again.
func (x *exchange) converse(ctx context.Context, r *remote) {
	s, client, err := x.streams.open(ctx, r.id)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err == nil {
		x.setSpeaks(r, client)
	}
	wg.Go(func() {
		var again reopening
		for {
			var lived time.Duration
			if err == nil {
				start := time.Now()
				x.talk(ctx, r, s, client)
				lived = time.Since(start)
			}
			if pause(ctx, again.delay(lived)) != nil {
				return
			}
			if s, client, err = x.streams.open(ctx, r.id); err == nil {
				x.setSpeaks(r, client)
			}
		}
	})
	x.write(ctx, r)
}

// reopening says when to open a stream to a peer again.
type reopening struct{ tries int }

// delay returns it for after a stream that lived so long: no time, if it could not be opened.
func (o *reopening) delay(lived time.Duration) time.Duration {
	if lived >= steadyTime {
		o.tries = 0
	}
	o.tries++
	delay := reopenDelay
	for n := quickReopens; n < o.tries && delay < maxReopenDelay; n++ {
		delay *= 2
	}
	return min(delay, maxReopenDelay)
}

// talk asks a peer over our protocol, until the stream ends.
func (x *exchange) talk(ctx context.Context, r *remote, s network.Stream, client *transfer.Client) {
	var err error
	ctx, cancel := context.WithCancel(ctx)
	received := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		received <- client.Receive(s, func(answers []transfer.Answer) { x.answered(r, answers) })
	})
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() }) // ends both directions
	for err == nil {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-r.wakeBlocks:
			err = client.Send(x.takeWants(r))
		}
	}
	cancel()
	wg.Wait()
	stop()
	x.setSpeaks(r, nil)
	if err := <-received; errors.Is(err, transfer.ErrProtocol) || errors.Is(err, ipfs.ErrHash) {
		x.misbehaved(ctx, r.id, err)
	}
}

// misbehaved hangs up on a peer that sent what is wrong.
func (x *exchange) misbehaved(ctx context.Context, p peer.ID, err error) {
	banned := x.book.misbehaved(p)
	x.log.Warn("peer sent wrong blocks", "peer", p, "err", err, "banned", banned)
	if err := x.net.DisconnectFrom(context.WithoutCancel(ctx), p); err != nil {
		x.log.Debug("cannot hang up", "peer", p, "err", err)
	}
}

// setSpeaks says that a peer speaks our protocol from now on, with a client, or with nil that it does no more. What it was
// asked for in the other one is asked for anew.
func (x *exchange) setSpeaks(r *remote, client *transfer.Client) {
	x.mu.Lock()
	defer x.mu.Unlock()
	speaks := client != nil
	r.speaks, r.client = speaks, client
	if !speaks {
		clear(r.wants)
	}
	if speaks {
		for c, e := range r.queue {
			if !e.cancel { // of what was sent over bitswap
				delete(r.queue, c)
				r.push(c, e)
			}
		}
		x.askNews(r)
		x.takeOver(r)
		return
	}
	for _, w := range x.wants {
		a := w.answer(r)
		if a == nil {
			continue
		}
		switch a.state {
		case stateAsked:
			r.push(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Block})
		case stateProbed:
			r.push(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Have, news: x.scattered()})
		}
	}
}

// takeWants empties the queue, the most urgent first.
func (x *exchange) takeWants(r *remote) []transfer.Want {
	x.mu.Lock()
	defer x.mu.Unlock()
	type entry struct {
		transfer.Want
		priority int32
	}
	entries := make([]entry, 0, len(r.wants))
	for c, e := range r.wants {
		entries = append(entries, entry{transfer.Want{
			Cid: c, Rank: uint8(e.rank), Have: e.kind == pb.Message_Wantlist_Have && !e.cancel, News: e.news, Cancel: e.cancel,
		}, e.priority})
	}
	clear(r.wants)
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.Rank, b.Rank), cmp.Compare(b.priority, a.priority))
	})
	wants := make([]transfer.Want, len(entries))
	for i, e := range entries {
		wants[i] = e.Want
	}
	return wants
}

// answered takes the answers of a frame.
func (x *exchange) answered(r *remote, answers []transfer.Answer) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, a := range answers {
		w, ok := x.wants[a.Cid]
		if !ok {
			continue
		}
		switch {
		case a.State == transfer.Sent:
			x.book.received(r.id, len(a.Block.Data)) // before anybody knows
			x.deliver(w, r, a.Block)
		case r.gone: // what it has or has not is nothing to go by any more
		case a.State == transfer.Here:
			x.has(w, r)
		case a.State == transfer.Absent:
			x.denied(w, r, a.Asked)
		}
	}
	x.feedFreed()
	x.takeOver(r)
}

// takeOver gives a peer that has nothing left to do half of what the busiest other one has not
// sent yet, of that what it would send last. So a slow peer, or one that is silent, holds up
// little of a long list, and a fast one is never idle.
func (x *exchange) takeOver(idle *remote) {
	if idle.pending > 0 || !idle.speaks || idle.gone || idle.misses > maxIdleMisses {
		return
	}
	var busiest *remote
	for _, r := range x.remotes {
		if r.speaks && r.pending >= leastTakenOver && (busiest == nil || r.pending > busiest.pending) {
			busiest = r
		}
	}
	if busiest == nil {
		return
	}
	var list []*want
	for _, w := range x.wants {
		a, state := w.answer(busiest), w.state(idle)
		likely := state == stateHas || !x.scattered() && state != stateAsked && state != stateDenied
		if a != nil && a.state == stateAsked && !a.bitswap && likely {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b *want) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(a.priority, b.priority))
	})
	for _, w := range list[:min(len(list), busiest.pending/2)] {
		x.hand(w, busiest, idle)
	}
}

// hand asks one peer for a block in place of another, which was asked for it.
func (x *exchange) hand(w *want, from, to *remote) {
	had := w.answer(from).has
	if w.drop(from); had {
		w.set(from, stateHas, time.Now())
	}
	from.owesNot(w)
	from.push(w.cid, wantEntry{cancel: true})
	x.askPeer(w, to)
}

// relieve asks r, which has the block, in place of a peer that owes many more: where many
// machines get an image from one, it is for what nobody else has. Where blocks lie scattered, it
// also does so in place of one that is not known to have it.
func (x *exchange) relieve(w *want, r *remote) {
	if !r.speaks || r.gone || time.Now().Before(r.silent.until) || x.holds(w, r) {
		return
	}
	for _, a := range w.answers {
		if a.state != stateAsked || a.bitswap || !a.remote.speaks {
			continue
		}
		unlikely := !a.has && x.scattered() && r.pending <= 2*a.remote.pending+leastTakenOver
		if unlikely || a.remote.pending > 2*r.pending+leastTakenOver {
			x.hand(w, a.remote, r)
			return
		}
	}
}

// rest has peers that said no over our protocol to a want that nobody answers told of it over
// bitswap too: they send the block as soon as they get it.
func (x *exchange) rest(w *want) {
	for _, lack := range w.lacks {
		lack(w.cid)
	}
	for _, a := range w.answers {
		if a.state == stateDenied && !a.bitswap {
			a.remote.pushBitswap(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Block})
		}
	}
}
