package embedded

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	pb "github.com/ipfs/boxo/bitswap/message/pb"
	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/semaphore"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// maxWants bounds the wants on the wire, whatever is asked of the node. Where many machines get one image, what
	// they have for each other is what all of them want at the same time. Of each there may be two in a stream, where half of
	// transfer.MaxUnanswered is the limit: for news, and for the block.
	maxWants = 4096
	// bitswapWeight is for how many of them one counts while some peer speaks bitswap alone: a
	// stock server drops wants beyond 1,024 of a peer without a word.
	bitswapWeight = 8
	// maxBulk of them may be beyond the first few of a list, so that a long list of
	// blocks that do not come leaves room for a reader.
	maxBulk = maxWants - 64*bitswapWeight
	// scarce is the share of answers that say no from which on peers are asked at once
	// whether they have a block, until it is below plenty: of many machines that get one image, each
	// would have that share of it from the one that has all.
	scarce, plenty = 0.25, 0.02
	// maxProbes is how many peers are asked at a time whether they have a block.
	maxProbes = 6
	// topPriority is that of a block somebody waits for alone. Along a list of many,
	// priority falls, so that servers put short lists before the tails of long ones.
	topPriority = 1 << 30
)

// bitswapNetwork is what the exchange needs of bitswap's network.
type bitswapNetwork interface {
	NewMessageSender(context.Context, peer.ID, *bsnetwork.MessageSenderOpts) (bsnetwork.MessageSender, error)
	DisconnectFrom(context.Context, peer.ID) error
}

// exchange is the client half of bitswap; see the package comment for how it asks.
type exchange struct {
	net     bitswapNetwork
	streams *blockStreams // of our own protocol
	book    *peerBook
	timeout time.Duration
	log     *slog.Logger
	demand  func()              // called without mu when a want has nobody to ask
	lack    func([]cid.Cid)     // the same, with blocks that nobody who was asked gives
	slots   *semaphore.Weighted // a weight for each want
	bulk    *semaphore.Weighted // the same for each want that says bulk

	mu       sync.Mutex
	wants    map[cid.Cid]*want
	remotes  map[peer.ID]*remote
	recent   recentSet
	avgSize  int64              // of the blocks received, a moving average
	missing  float64            // share of the answers that say no, a moving average
	scarcity bool               // it was above scarce, and not below plenty since
	held     map[*want]struct{} // wants that are held back
	closed   bool
	wake     chan struct{} // tells the watcher that there are wants
	joined   chan *remote  // peers whose writer is to be started
	done     chan struct{} // closed by close
	wg       sync.WaitGroup
}

// newExchange returns an exchange that moves nothing on by itself until start is called.
func newExchange(net bitswapNetwork, streams *blockStreams, book *peerBook, timeout time.Duration, log *slog.Logger) *exchange {
	return &exchange{
		net: net, streams: streams, book: book, timeout: timeout, log: log, demand: func() {}, lack: func([]cid.Cid) {},
		slots: semaphore.NewWeighted(maxWants), bulk: semaphore.NewWeighted(maxBulk),
		wants: map[cid.Cid]*want{}, held: map[*want]struct{}{}, remotes: map[peer.ID]*remote{},
		avgSize: ipfs.LeafSize, wake: make(chan struct{}, 1),
		joined: make(chan *remote), done: make(chan struct{}),
	}
}

// start starts the goroutines of the exchange, which live until ctx ends; wait for them with wg.
func (x *exchange) start(ctx context.Context) {
	x.wg.Go(func() { x.watch(ctx) })
	x.wg.Go(func() { x.startWriters(ctx) })
}

// order says how a block is wanted.
type order struct {
	rank     ipfs.Rank
	priority int32         // within its rank
	patient  bool          // wait for peers to come back; else fail when all connected said no
	lack     func(cid.Cid) // told when all connected have said no, if the want is patient; nil: nothing
	bulk     bool          // one of many
	weight   int64         // in slots and bulk, set by request
	size     int64         // of the block, as far as is known
}

// bitswapPriority is the priority among all ranks.
func (o order) bitswapPriority() int32 { return o.priority - int32(o.rank)*(topPriority/4) }

// request asks for c on behalf of out, which gets one result, unless forget is called
// first, and must have room for it. It waits while too many wants are on the wire.
func (x *exchange) request(ctx context.Context, c cid.Cid, how order, out chan<- result) error {
	if x.join(c, how, out) {
		return nil
	}
	how.weight = x.weight()
	if err := x.acquire(ctx, how); err != nil {
		return fmt.Errorf("want block %s: %w", c, err)
	}
	hurry, err := x.add(c, how, out)
	if err != nil {
		return err
	}
	if hurry {
		x.demand()
		x.lack([]cid.Cid{c})
	}
	return nil
}

// join makes out wait for a want that is there already.
func (x *exchange) join(c cid.Cid, how order, out chan<- result) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	w, ok := x.wants[c]
	if ok {
		x.joinWant(w, how, out)
	}
	return ok
}

func (x *exchange) joinWant(w *want, how order, out chan<- result) {
	w.waiters = append(w.waiters, out)
	w.patient = w.patient || how.patient
	if how.lack != nil {
		w.lacks = append(w.lacks, how.lack)
		if w.heldFor == nil && !w.pendingAt() && !w.undecided() {
			how.lack(w.cid)
		}
	}
	w.hurry(how)
	if w.urgent = w.urgent || !how.bulk; w.urgent && w.heldFor != nil {
		x.ask(w)
	}
}

// add makes a want; the caller holds a slot for it. It says whether there is nobody
// to ask.
func (x *exchange) add(c cid.Cid, how order, out chan<- result) (bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		x.release(how)
		return false, fmt.Errorf("want block %s: %w", c, errClosed)
	}
	if w, ok := x.wants[c]; ok {
		x.release(how)
		x.joinWant(w, how, out)
		return false, nil
	}
	w := &want{cid: c, order: how, urgent: !how.bulk, created: time.Now(), waiters: []chan<- result{out}}
	w.retryAt, w.retryDelay = w.created.Add(firstRetry), firstRetry
	if how.lack != nil {
		w.lacks = append(w.lacks, how.lack)
	}
	x.wants[c] = w
	x.next(w)
	if x.scattered() {
		x.probe(w)
	}
	select {
	case x.wake <- struct{}{}:
	default:
	}
	return len(w.answers) == 0, nil
}

// forget takes back a request. The want ends with its last waiter.
func (x *exchange) forget(c cid.Cid, out chan<- result) {
	x.mu.Lock()
	defer x.mu.Unlock()
	w, ok := x.wants[c]
	if !ok {
		return
	}
	for i, o := range w.waiters {
		if o == out {
			w.waiters = append(w.waiters[:i], w.waiters[i+1:]...)
			break
		}
	}
	if len(w.waiters) == 0 {
		x.end(w, nil)
		x.feedFreed()
	}
}

// ask sends a want to one more peer, the best that was not asked and did not say no,
// and returns false if there is none.
func (x *exchange) ask(w *want) bool {
	var best *remote
	var bestCost int
	now := time.Now()
	for _, r := range x.remotes {
		state := w.state(r)
		if state == stateAsked || state == stateDenied {
			continue
		}
		if cost := r.cost(state, now); best == nil || cost < bestCost {
			best, bestCost = r, cost
		}
	}
	if best == nil {
		x.setHeld(w, nil)
		return false
	}
	if x.holds(w, best) {
		x.setHeld(w, best)
	} else {
		x.askPeer(w, best)
	}
	return true
}

func (x *exchange) askPeer(w *want, r *remote) {
	now := time.Now()
	if w.state(r) != stateAsked {
		x.setHeld(w, nil)
		r.owes(w)
		if r.pending == 1 {
			r.lastIn, r.asked = now, now // it was idle: its silence starts here
		}
	}
	w.set(r, stateAsked, now)
	r.push(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Block})
}

// next asks another peer for a want that nobody is asked for, and ends one whose
// waiters do not want to wait for other peers.
func (x *exchange) next(w *want) bool {
	if w.pendingAt() || x.ask(w) {
		return true
	}
	if !w.patient && !w.undecided() {
		x.fail(w, nil)
	} else if !w.undecided() {
		x.rest(w)
	}
	return false
}

// scattered says whether blocks are here and there: one peer has this, another that. With two it
// is soon known.
func (x *exchange) scattered() bool { return len(x.remotes) > 2 && x.scarcity }

// said notes an answer of a peer.
func (x *exchange) said(yes bool) {
	x.missing -= x.missing / 64
	if !yes {
		x.missing += 1. / 64
	}
	if x.missing > scarce || x.missing < plenty {
		x.scarcity = x.missing > scarce
	}
}

// probe asks peers that have said nothing about w whether they have it: those that had most of
// what they were asked for lately, and others at random. It does not while others are to answer.
func (x *exchange) probe(w *want) {
	if x.scattered() && slices.ContainsFunc(w.answers, func(a answer) bool { return a.state == stateProbed }) {
		return
	}
	var unknown []*remote // in any order, as the map is
	for _, r := range x.remotes {
		if w.state(r) == stateUnknown {
			unknown = append(unknown, r)
		}
	}
	slices.SortStableFunc(unknown, func(a, b *remote) int { return cmp.Compare(a.misses/4, b.misses/4) })
	for _, r := range unknown[:min(len(unknown), maxProbes)] {
		x.probeOne(w, r)
	}
}

func (x *exchange) probeOne(w *want, r *remote) {
	w.set(r, stateProbed, time.Now())
	r.push(w.cid, wantEntry{order: w.order, kind: pb.Message_Wantlist_Have, news: x.scattered()})
}

// end removes a want, tells the peers that were asked, but for one that answered,
// and gives back its slot.
func (x *exchange) end(w *want, answered *remote) {
	delete(x.wants, w.cid)
	x.recent.add(w.cid)
	x.setHeld(w, nil)
	for _, a := range w.answers {
		if a.state == stateAsked {
			a.remote.owesNot(w)
		}
		if a.remote != answered {
			a.remote.push(w.cid, wantEntry{cancel: true})
		}
		if _, queued := a.remote.queue[w.cid]; a.remote.speaks && (a.bitswap || queued) {
			a.remote.pushBitswap(w.cid, wantEntry{cancel: true})
		}
	}
	x.release(w.order)
}

// fail ends a want with NotFoundError.
func (x *exchange) fail(w *want, cause error) {
	err := &NotFoundError{Cid: w.cid, Peers: x.tried(w), Waited: time.Since(w.created), Cause: cause}
	x.end(w, nil)
	for _, out := range w.waiters {
		out <- result{cid: w.cid, err: err}
	}
}

// tried describes what became of w at each peer.
func (x *exchange) tried(w *want) []string {
	var out []string
	for _, a := range w.answers {
		out = append(out, fmt.Sprintf("%s (%s)", a.remote.id, a.state))
	}
	return append(out, x.book.describe(func(p peer.ID) bool { return x.remotes[p] != nil })...)
}

// notFound describes a request that its caller gives up because its context ended.
func (x *exchange) notFound(c cid.Cid, waited time.Duration, cause error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	w, ok := x.wants[c]
	if !ok {
		w = &want{cid: c}
	}
	return &NotFoundError{Cid: c, Peers: x.tried(w), Waited: waited, Cause: cause}
}

// busy says whether anybody waits for a block.
func (x *exchange) busy() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.wants) > 0
}

// blockSize estimates the size of blocks to come.
func (x *exchange) blockSize() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.avgSize
}

// close fails all wants. The goroutines end with the context of newExchange.
func (x *exchange) close() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.closed {
		x.closed = true
		close(x.done)
	}
	for _, w := range x.wants {
		x.fail(w, errClosed)
	}
}
