package origin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// What nobody waits for is wanted of peers all the time, and they tell what they have not got: that, and when nothing comes of them for a
// while, or much less than the origin would bring, all the rest, is read from the origin, as far as it is this node's (together.go). It is looked at again whose a frame is when it is
// its turn to be read: by then there may be others, or it has come from one.

const (
	// spareTick is how often it is looked at whose the frames are.
	spareTick = 100 * time.Millisecond
	// What peers have not got is gathered until they say nothing for lackPause, and for longestLack at most.
	lackPause, longestLack = 2 * time.Millisecond, 30 * time.Millisecond
	// maxFailures is how often in a row the origin is asked when it gives nothing: what one seed has not got, another may.
	maxFailures = 3
)

// A spare is one such fetch.
type spare struct {
	*both
	src     *Source
	cids    []cid.Cid
	began   time.Time
	lacked  chan struct{} // told of each block that peers have not got
	more    <-chan struct{}
	nowhere map[cid.Cid]struct{} // what the origin has not got
	away    error                // why it may have it later
	again   time.Time            // when it is asked again then
	pause   time.Duration
	failed  error // why it gave nothing, the last time
	fails   int   // in a row
	// When it was looked at last, peers had told so much, and all that was wanted was to be got by these others.
	told   int
	others []string

	mu      sync.Mutex
	lacking map[cid.Cid]struct{} // what peers have not got
	lately  time.Time            // when a peer brought something
}

// spare ends with ctx; what it asks of the origin ends with live.
func (s *Source) spare(ctx, live context.Context, f *both, cids []cid.Cid) error {
	now := time.Now()
	r := &spare{
		both: f, src: s, cids: cids, began: now, lately: now, lacked: make(chan struct{}, 1), pause: firstPause,
		more: s.origin.learns(), failed: ErrNone, nowhere: map[cid.Cid]struct{}{}, lacking: map[cid.Cid]struct{}{},
	}
	for {
		again, err := r.round(ctx, live)
		if !again {
			return err
		}
	}
}

// round asks peers once for all that has not come, and the origin as long as they are at it. It is to be done again if peers gave up
// something that the origin may have.
func (r *spare) round(ctx, live context.Context) (again bool, err error) {
	r.fromOrigin(live)
	pctx, cancel := context.WithCancel(ipfs.WithLack(ctx, r.lack))
	peers := make(chan error, 1)
	go func() { peers <- measuredPeers{r.node, &r.rank.peers}.Fetch(pctx, r.left(r.cids), r.fromPeer) }()
	var perr error
	for ended := false; !ended; {
		if len(r.left(r.cids)) == 0 || r.over(ctx) != nil {
			cancel()
			<-peers
			return false, r.end(ctx)
		}
		r.fromOrigin(live)
		ended, perr = r.wait(ctx, peers)
	}
	cancel()
	left := r.left(r.cids)
	if len(left) == 0 || r.over(ctx) != nil {
		return false, r.end(ctx)
	}
	for _, c := range left {
		r.lack(c)
	}
	if r.away == nil && !slices.ContainsFunc(left, func(c cid.Cid) bool { _, ok := r.nowhere[c]; return !ok }) {
		return false, fmt.Errorf("%w; and from where the image is kept: %w", cmp.Or(perr, ipfs.ErrNotFound), r.failed)
	}
	select { // peers that have ended would else be asked again and again
	case <-time.After(spareTick):
	case <-ctx.Done():
	}
	return true, nil
}

// end is the error that ends it, with what was wrong with the origin, if that was waited for.
func (r *spare) end(ctx context.Context) error {
	err := r.over(ctx)
	if err != nil && r.away != nil && !r.hasEnded() {
		err = fmt.Errorf("%w; from where the image is kept: %w", err, r.away)
	}
	return err
}

// wait returns when there is something to do, and says whether peers have ended, and how.
func (r *spare) wait(ctx context.Context, peers <-chan error) (ended bool, err error) {
	tick := time.NewTimer(spareTick)
	defer tick.Stop()
	select {
	case err := <-peers:
		return true, err
	case <-r.lacked:
		r.gather(ctx)
	case <-r.more:
		r.more = r.src.origin.learns()
		clear(r.nowhere)
		r.told = 0
	case <-tick.C:
	case <-ctx.Done():
	}
	return false, nil
}

// gather returns when peers have said of all what they have not got, or nearly.
func (r *spare) gather(ctx context.Context) {
	end, pause := time.NewTimer(longestLack), time.NewTimer(lackPause)
	defer end.Stop()
	defer pause.Stop()
	for {
		select {
		case <-r.lacked:
			pause.Reset(lackPause)
		case <-pause.C:
			return
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// lack notes what peers have not got.
func (r *spare) lack(c cid.Cid) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lacking[c] = struct{}{}
	select {
	case r.lacked <- struct{}{}:
	default:
	}
}

// fromPeer takes what a peer brought.
func (r *spare) fromPeer(b ipfs.Block) error {
	now := time.Now()
	r.src.lately.Store(now.UnixNano())
	r.src.trust.note(1, 1)
	r.mu.Lock()
	r.lately = now
	r.mu.Unlock()
	return r.deliver(b)
}

// quiet is for how long no peer brought anything, to this fetch and to any.
func (r *spare) quiet() (here, anywhere time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	here = time.Since(r.lately)
	return here, min(here, time.Since(time.Unix(0, r.src.lately.Load())))
}

// wanted returns what is to be had from the origin: what peers have not got, or everything when nothing comes of them, or little. To
// know how little that is, something is asked of the origin that peers come to last. told grows with what peers say.
func (r *spare) wanted(ctx context.Context) (list []cid.Cid, told int) {
	left := r.left(r.cids)
	here, anywhere := r.quiet()
	alone := !r.src.together()
	all := anywhere > sparePatience || here > spareTurn || alone && r.rank.peersSlow()
	measured, size := len(left), sizeOf(ctx, 1)
	if alone && int64(len(left))*size >= leastMeasured && r.rank.probes() {
		measured = max(0, len(left)-int(maxRange/size))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	told = 1 + len(r.lacking)
	if all {
		told = -told
	}
	for i, c := range left {
		_, lacking := r.lacking[c]
		if _, nowhere := r.nowhere[c]; !nowhere && (lacking || all || i >= measured) {
			list = append(list, c)
		}
	}
	return list, told
}

// fromOrigin reads what is wanted of the origin and this node's, if anything is.
func (r *spare) fromOrigin(ctx context.Context) {
	if r.away != nil && time.Now().Before(r.again) {
		return
	}
	r.away = nil
	wanted, told := r.wanted(ctx)
	if len(wanted) == 0 {
		return
	}
	who, overdue := r.owners(), r.overdue()
	if told == r.told && slices.Equal(who.others, r.others) && !overdue {
		return // all of it is others', as before
	}
	r.told = 0
	mine, theirs, err := r.src.origin.split(ctx, wanted, who)
	switch {
	case ctx.Err() != nil:
		return
	case !errors.Is(err, ErrAway):
		r.failed = cmp.Or(err, r.failed)
		r.forget(wanted, mine, theirs)
	case len(mine) == 0:
		r.later(err)
	}
	if len(mine) == 0 && len(theirs) > 0 && overdue {
		r.src.trust.note(1, 0)
		mine = theirs
	}
	if len(mine) == 0 {
		r.told, r.others = told, who.others
		return
	}
	err = r.src.origin.fetch(ctx, mine, r.deliver, r.owners, r.left)
	switch came := len(r.left(mine)) < len(mine); {
	case came || err == nil:
		r.pause, r.fails = firstPause, 0
	case errors.Is(err, ErrAway):
		r.later(err)
	default:
		r.failed = err
		if r.fails++; r.fails >= maxFailures {
			r.forget(mine, nil, nil)
		}
	}
}

// later has the origin be asked again after a pause.
func (r *spare) later(err error) {
	r.away, r.again = err, time.Now().Add(r.pause)
	r.pause = min(2*r.pause, lastPause)
}

// forget notes what the origin has not got.
func (r *spare) forget(wanted, mine, theirs []cid.Cid) {
	has := make(map[cid.Cid]struct{}, len(wanted))
	for _, list := range [][]cid.Cid{mine, theirs} {
		for _, c := range list {
			has[c] = struct{}{}
		}
	}
	for _, c := range wanted {
		if _, ok := has[c]; !ok {
			r.nowhere[c] = struct{}{}
		}
	}
}

// overdue says whether others have had the time to bring what is theirs.
func (r *spare) overdue() bool {
	here, anywhere := r.quiet()
	turn := spareTurn + turnRequests*r.src.origin.pace.longest()
	return anywhere > turn || here > longTurns*turn
}

// owners are who gets things together now: nobody but this node, while others do not bring what is theirs.
func (r *spare) owners() owners {
	node, ok := r.src.node.(partners)
	if !ok || !r.src.trust.now() {
		return owners{}
	}
	self, others := node.Partners()
	slices.Sort(others)
	return owners{self, others}
}
