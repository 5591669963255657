package origin

import (
	"cmp"
	"context"
	"hash/fnv"
	"io"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

// Machines that get one image at the same time, and that no peer has, would each have all of it from the registry. So
// each frame is one machine's, by its hash and theirs: that one has it from the registry, and the others from there. Nobody has
// to agree on anything. Each goes by who asks it for blocks, which those do who want what it wants; who sees
// it otherwise asks the registry once more.

// How long others may take for the frames that are theirs, with nothing coming: what somebody waits for, and the rest, besides a few of the requests that
// this node makes itself, since all share the registry's link. One fetch waits longTurns of that when others get something.
const (
	demandTurn   = 400 * time.Millisecond
	spareTurn    = 3 * time.Second
	turnRequests = 3
	longTurns    = 4
)

// partners is a node that knows who gets something at the same time.
type partners interface {
	Partners() (self string, others []string)
}

// together says whether others get something at the same time.
func (s *Source) together() bool {
	node, ok := s.node.(partners)
	if !ok {
		return false
	}
	_, others := node.Partners()
	return len(others) > 0
}

// shared has from partners what is theirs to get, and from the origin what is this node's, where somebody waits.
func (s *Source) shared(ctx, live context.Context, f *both, cids []cid.Cid) error {
	node, ok := s.node.(partners)
	if !ok || len(cids) == 0 || !s.trust.now() {
		return nil
	}
	self, others := node.Partners()
	if len(others) == 0 {
		return nil
	}
	mine, theirs, _ := s.origin.split(live, cids, owners{self, others})
	if len(theirs) == 0 {
		return nil
	}
	var group errgroup.Group
	group.Go(func() error {
		err := f.alone(ctx, f.node, theirs, demandTurn, 0)
		s.trust.note(len(theirs), len(theirs)-len(f.left(theirs)))
		return err
	})
	if len(mine) > 0 {
		group.Go(func() error {
			_ = s.origin.Fetch(live, mine, f.deliver) // what does not come is asked for again
			return f.over(ctx)
		})
	}
	return group.Wait()
}

// Pauses in which others are not waited for that did not bring what was theirs to get: they may want something else.
const (
	firstAlone = 2 * time.Second
	lastAlone  = time.Minute
)

// trust is whether others are waited for.
type trust struct {
	mu    sync.Mutex
	pause time.Duration
	again time.Time
}

func (t *trust) now() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Now().After(t.again)
}

// note says how many blocks others were to get, and how many came.
func (t *trust) note(wanted, came int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if 2*came >= wanted {
		t.pause = 0
		return
	}
	t.pause = min(max(2*t.pause, firstAlone), lastAlone)
	t.again = time.Now().Add(t.pause)
}

// owners are the machines that get something together. Alone, this node has all to get.
type owners struct {
	self   string
	others []string
}

// own says whether this node's is the highest of all hashes with what is to be got (rendezvous hashing).
func (o owners) own(what string) bool {
	if len(o.others) == 0 {
		return true
	}
	own := weight(o.self, what)
	for _, other := range o.others {
		if w := weight(other, what); cmp.Or(cmp.Compare(w, own), cmp.Compare(other, o.self)) > 0 {
			return false
		}
	}
	return true
}

// split says whose turn it is to get blocks from the origin. What the origin has not got is nobody's: the error may say why.
func (o *Origin) split(ctx context.Context, cids []cid.Cid, who owners) (mine, theirs []cid.Cid, err error) {
	reads, err := o.plan(ctx, cids, tried{})
	for _, r := range reads {
		if r.seed == nil {
			mine = append(mine, r.block)
			continue
		}
		for _, fr := range r.frames {
			own := len(fr.wanted) > 0 && who.own(frameName(r, fr.number))
			for _, w := range fr.wanted {
				if own {
					mine = append(mine, w.cid)
				} else {
					theirs = append(theirs, w.cid)
				}
			}
		}
	}
	return mine, theirs, err
}

func weight(node, what string) uint64 {
	h := fnv.New64a()
	_, _ = io.WriteString(h, node+" "+what) // never fails
	// FNV alone leaves what differs at the end in the low bits.
	v := h.Sum64()
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	return v ^ v>>33
}
