package embedded

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/boxo/bitswap/message"
	pb "github.com/ipfs/boxo/bitswap/message/pb"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
)

// sendTimeout bounds how long a peer may take to read a message of ours.
const sendTimeout = 10 * time.Second

const (
	// maxMisses is how far misses count against a peer.
	maxMisses = 16
	// silenceTime is for how long a peer that kept a block back is asked for nothing that another
	// may have. Each time it does so again, and has sent none between, it is twice as long, up to
	// maxSilence.
	silenceTime = 30 * time.Second
	maxSilence  = 10 * time.Minute
)

// remote is a connected peer. All but the constants is guarded by exchange.mu.
type remote struct {
	id         peer.ID
	name       string // id as text
	wake       chan struct{}
	wakeBlocks chan struct{}

	gone    bool
	greeted bool                  // it was sent a message
	cancel  context.CancelFunc    // stops the writer, nil before it started
	queue   map[cid.Cid]wantEntry // to be sent over bitswap; of two for a CID the later counts
	speaks  bool                  // our protocol, too
	client  *transfer.Client      // of that, if it speaks it
	wants   map[cid.Cid]wantEntry // to be sent over that
	pending int                   // wants it was asked for and has not answered
	owed    int64                 // bytes of these
	freed   bool                  // it owes less than when it was fed last
	pace    pace                  // at which it sends
	asked   time.Time             // when it was asked for the first block since it was idle; zero: it has answered
	rtt     time.Duration         // the shortest time until such an answer
	broken  int                   // blocks it said it has and then did not have, less those it sent
	served  uint64                // wanted blocks it sent
	misses  int                   // blocks it did not have since it last sent one
	lastIn  time.Time             // its last wanted block, or when it ceased to be idle
	silent  silence               // as the book has it
}

// lastSent is when it last sent a wanted block, or for a while some bytes: a slow link that many share
// takes longer for a block than a peer may be silent.
func (r *remote) lastSent(now time.Time) time.Time {
	if r.client == nil || now.Sub(r.lastIn) > slowBlock {
		return r.lastIn
	}
	return latest(r.lastIn, r.client.LastRead())
}

// silence is what comes of keeping back a block.
type silence struct {
	until time.Time
	time  time.Duration // the last time
}

// again is the next one.
func (s silence) again(now time.Time) silence {
	if now.Before(s.until) {
		return s // of the same time
	}
	d := min(max(silenceTime, 2*s.time), maxSilence)
	return silence{now.Add(d), d}
}

type wantEntry struct {
	order
	kind   pb.Message_Wantlist_WantType
	news   bool // with Have, where our protocol is spoken: also when it has come
	cancel bool
}

// cost orders peers for a want: those who said that they have the block before all others, and then by
// queue, with recent misses as a factor, which are broken words of those who said so. Those that keep blocks back come last,
// whatever they said: a dead peer costs one stallTime, and not one for each read.
func (r *remote) cost(state answerState, now time.Time) int {
	const unknown, silent = 1 << 20, 1 << 24
	faults := r.broken
	if state != stateHas {
		faults = r.misses
	}
	cost := (r.pending + 1) * (1 + min(faults, maxMisses))
	if state != stateHas {
		cost += unknown
	}
	if now.Before(r.silent.until) {
		cost += silent
	}
	return cost
}

// push has a want sent over the protocol that the peer speaks.
func (r *remote) push(c cid.Cid, e wantEntry) {
	if !r.speaks {
		r.pushBitswap(c, e)
		return
	}
	r.wants[c] = e
	nudge(r.wakeBlocks)
}

func (r *remote) pushBitswap(c cid.Cid, e wantEntry) {
	r.queue[c] = e
	nudge(r.wake)
}

func nudge(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// connected gives a new peer the wants nobody answers, and has its writer started.
func (x *exchange) connected(p peer.ID) {
	r := x.addRemote(p)
	if r == nil {
		return
	}
	select {
	case x.joined <- r:
	case <-x.done:
	}
}

func (x *exchange) addRemote(p peer.ID) *remote {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed || x.remotes[p] != nil {
		return nil
	}
	r := &remote{
		id: p, name: p.String(), wake: make(chan struct{}, 1), queue: map[cid.Cid]wantEntry{}, lastIn: time.Now(),
		silent:     x.book.silence(p),
		wakeBlocks: make(chan struct{}, 1), wants: map[cid.Cid]wantEntry{},
	}
	x.remotes[p] = r
	for _, w := range x.wants {
		switch {
		case w.heldFor != nil:
			x.probeOne(w, r)
		case !w.pendingAt():
			x.askPeer(w, r)
		}
	}
	return r
}

// startWriters starts the writers of the peers that join, until ctx ends.
func (x *exchange) startWriters(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-x.joined:
			ctx, cancel := context.WithCancel(ctx)
			x.mu.Lock()
			r.cancel = cancel
			if r.gone {
				cancel()
			}
			x.mu.Unlock()
			x.wg.Go(func() {
				defer cancel()
				x.converse(ctx, r)
			})
		}
	}
}

// disconnected gives the wants of a peer to others.
func (x *exchange) disconnected(p peer.ID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.remotes[p]
	if r == nil {
		return
	}
	delete(x.remotes, p)
	r.gone = true
	if r.cancel != nil {
		r.cancel()
	}
	for _, w := range x.wants {
		w.drop(r)
		if w.heldFor == r {
			x.setHeld(w, nil)
		}
		if x.next(w) && w.heldFor != nil {
			x.probe(w)
		}
	}
}

// write sends the queue of a peer, as one message whatever has gathered while the
// last one was sent: nothing waits for company.
func (x *exchange) write(ctx context.Context, r *remote) {
	var sender bsnetwork.MessageSender
	defer func() {
		if sender != nil {
			sender.Reset()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		msg := x.take(r)
		if msg.Empty() {
			continue
		}
		var err error
		if sender == nil {
			opts := &bsnetwork.MessageSenderOpts{MaxRetries: 2, SendTimeout: sendTimeout, SendErrorBackoff: 50 * time.Millisecond}
			sender, err = x.net.NewMessageSender(ctx, r.id, opts)
		}
		if err == nil {
			err = sender.SendMsg(ctx, msg)
		}
		if err != nil && ctx.Err() == nil {
			// A connection that takes no messages is replaced: what was asked on it is
			// asked again when the peer connects.
			x.log.Debug("cannot send to peer", "peer", r.id, "err", err)
			x.net.DisconnectFrom(ctx, r.id)
			return
		}
	}
}

func (x *exchange) take(r *remote) message.BitSwapMessage {
	x.mu.Lock()
	defer x.mu.Unlock()
	// The first wantlist is whole: the peer forgets wants of a connection, or of a life
	// of this node, that ended without its noticing.
	msg := message.New(!r.greeted)
	r.greeted = r.greeted || len(r.queue) > 0
	for c, e := range r.queue {
		if e.cancel {
			msg.Cancel(c)
			continue
		}
		w, ok := x.wants[c]
		if !ok {
			continue // over: nobody would take it back
		}
		if a := w.answer(r); a != nil {
			a.bitswap = true
			msg.AddEntry(c, e.bitswapPriority(), e.kind, true)
		}
	}
	clear(r.queue)
	return msg
}

// received takes what a peer sent. boxo has computed the CID of each block from its
// bytes, so that a block under a wanted CID is the right one.
func (x *exchange) received(ctx context.Context, p peer.ID, msg message.BitSwapMessage) {
	bad := x.receivedBlocks(p, msg.Blocks())
	if presences := msg.BlockPresences(); len(presences) > 0 {
		x.receivedPresences(p, presences)
	}
	if bad == 0 {
		return
	}
	banned := x.book.misbehaved(p)
	x.log.Warn("peer sent blocks nobody wanted", "peer", p, "blocks", bad, "banned", banned)
	if banned {
		x.net.DisconnectFrom(ctx, p)
	}
}

// receivedBlocks hands out blocks, and returns how many were not wanted.
func (x *exchange) receivedBlocks(p peer.ID, blks []blocks.Block) int {
	if len(blks) == 0 {
		return 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.remotes[p]
	bad := 0
	for _, b := range blks {
		w, ok := x.wants[b.Cid()]
		switch {
		case ok:
			x.book.received(p, len(b.RawData())) // before anybody knows
			x.deliver(w, r, ipfs.Block{Cid: w.cid, Data: b.RawData()})
		case !x.recent.has(b.Cid()):
			bad++
		}
	}
	x.feedFreed()
	if bad > 0 && r != nil {
		r.misses = maxMisses // anybody else is better
		x.askOthers(r)
	}
	return bad
}

// askOthers asks one more peer for each want that r was asked for.
func (x *exchange) askOthers(r *remote) {
	for _, w := range x.wants {
		if w.state(r) == stateAsked {
			x.ask(w)
		}
	}
}

// text is the ID as text. What comes from a peer that has just gone is of nobody.
func (r *remote) text() string {
	if r == nil {
		return ""
	}
	return r.name
}

func (x *exchange) deliver(w *want, r *remote, b ipfs.Block) {
	x.said(true)
	if r != nil {
		r.lastIn, r.misses = time.Now(), 0
		r.served++
		r.broken = max(0, r.broken-1)
		r.answers(r.lastIn)
		r.pace.came(len(b.Data), r.lastIn)
		if r.silent.time > 0 {
			x.silence(r, silence{})
		}
	}
	x.avgSize += (int64(len(b.Data)) - x.avgSize) / 16
	x.end(w, r)
	b.From = r.text()
	res := result{cid: w.cid, block: b, store: new(sync.Once)}
	for _, out := range w.waiters {
		out <- res
	}
}

// silence notes it of a peer, also for its next connection.
func (x *exchange) silence(r *remote, s silence) {
	r.silent = s
	x.book.setSilence(r.id, s)
}
