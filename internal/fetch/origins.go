package fetch

import (
	"encoding/binary"
	"math"

	"github.com/ipfs/go-cid"
)

const (
	// maxOrigins bounds the leaves in each half of what is remembered: so it is always known of
	// the last quarter of a million that came.
	maxOrigins = 1 << 18
	// otherPeer is the number of all peers beyond those that have numbers of their own.
	otherPeer = math.MaxUint8
)

// OtherPeers is what Origin calls peers that are too many to tell apart.
const OtherPeers = "other"

// origins remembers which peer each leaf came from: a number, by the first bytes of the leaf's
// digest, so that a leaf takes some 20 bytes. Fetcher.mu guards it.
type origins struct {
	peers      []string // by number
	numbers    map[string]uint8
	young, old map[uint64]uint8
}

func newOrigins() origins {
	return origins{numbers: make(map[string]uint8), young: make(map[uint64]uint8)}
}

func originKey(leaf cid.Cid) uint64 {
	sum := sumOf(leaf)
	return binary.BigEndian.Uint64(sum[:])
}

// add notes where a leaf came from; an empty peer is nobody.
func (o *origins) add(leaf cid.Cid, peer string) {
	if peer == "" {
		return
	}
	n, known := o.numbers[peer]
	if !known {
		n = otherPeer
		if len(o.peers) < otherPeer {
			n = uint8(len(o.peers))
			o.peers = append(o.peers, peer)
			o.numbers[peer] = n
		}
	}
	if len(o.young) >= maxOrigins {
		o.old, o.young = o.young, make(map[uint64]uint8)
	}
	o.young[originKey(leaf)] = n
}

// of returns the peer that a leaf came from, if that is known.
func (o *origins) of(leaf cid.Cid) (peer string, ok bool) {
	key := originKey(leaf)
	n, ok := o.young[key]
	if !ok {
		n, ok = o.old[key]
	}
	switch {
	case !ok:
		return "", false
	case int(n) < len(o.peers):
		return o.peers[n], true
	default:
		return OtherPeers, true
	}
}

// Origin returns which peer a leaf came from, since New. It is not known of leaves that were
// here, and of those that came long ago.
func (f *Fetcher) Origin(leaf cid.Cid) (peer string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.origins.of(leaf)
}
