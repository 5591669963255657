package origin

import (
	"cmp"
	"context"
	"hash/fnv"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
)

// Machines that get one image at the same time, and that no peer has, would each have all of it from the registry. So
// each frame is one machine's, by its hash and theirs: that one has it from the registry, and the others from there. Nobody has
// to agree on anything. Each goes by who asks it for blocks, which those do who want what it wants; who sees
// it otherwise asks the registry once more.

// How long others may take for the frames that are theirs, with nothing coming: what somebody waits for, and the rest.
const (
	demandTurn = 400 * time.Millisecond
	spareTurn  = 3 * time.Second
)

// partners is a node that knows who gets something at the same time.
type partners interface {
	Partners() (self string, others []string)
}

// shared has from partners what is theirs to get, and from the origin what is this node's.
func (s *Source) shared(ctx context.Context, f *both, cids []cid.Cid) error {
	node, ok := s.node.(partners)
	if !ok || len(cids) == 0 || !s.trust.now() {
		return nil
	}
	self, others := node.Partners()
	if len(others) == 0 {
		return nil
	}
	mine, theirs := s.origin.split(ctx, cids, self, others)
	if len(theirs) == 0 {
		return nil
	}
	turn := spareTurn
	if ipfs.RankOf(ctx) <= ipfs.Ahead {
		turn = demandTurn
	}
	var group errgroup.Group
	group.Go(func() error {
		err := f.peers(ctx, theirs, turn)
		s.trust.note(len(theirs), len(theirs)-len(f.left(theirs)))
		return err
	})
	if len(mine) > 0 {
		group.Go(func() error {
			_ = s.origin.Fetch(ctx, mine, f.deliver) // what does not come is asked for again
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

// split says whose turn it is to get blocks from the origin. What the origin has not got is nobody's.
func (o *Origin) split(ctx context.Context, cids []cid.Cid, self string, others []string) (mine, theirs []cid.Cid) {
	reads, _ := o.plan(ctx, cids, tried{})
	for _, r := range reads {
		if r.seed == nil {
			mine = append(mine, r.block)
			continue
		}
		for _, fr := range r.frames {
			own := owns(self, others, string(r.blob)+"/"+strconv.Itoa(fr.number))
			for _, w := range fr.wanted {
				if own {
					mine = append(mine, w.cid)
				} else {
					theirs = append(theirs, w.cid)
				}
			}
		}
	}
	return mine, theirs
}

// owns says whether this node's is the highest of all hashes with what is to be got (rendezvous hashing).
func owns(self string, others []string, what string) bool {
	own := weight(self, what)
	for _, o := range others {
		if w := weight(o, what); cmp.Or(cmp.Compare(w, own), cmp.Compare(o, self)) > 0 {
			return false
		}
	}
	return true
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
