package embedded

import (
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// maxBad is the number of messages with blocks nobody wanted after which a peer
	// is banned.
	maxBad = 3
	// maxStrangers bounds what is remembered of peers that are not configured.
	maxStrangers = 1024
	// restartGrace is for how long after a restart such blocks are not counted: what was
	// on its way to this node's last life, which nobody here remembers asking for.
	restartGrace = sendTimeout
)

// peerBook remembers of each peer what outlives its connections, and as libp2p's
// connection gater keeps out who is banned, and who is not allowed.
type peerBook struct {
	banTime      time.Duration
	allowed      map[peer.ID]bool // nil: all
	lenientUntil time.Time        // see restartGrace

	mu    sync.Mutex
	peers map[peer.ID]*peerRecord
	named map[peer.ID]int // times that allowDial is in force
}

type peerRecord struct {
	configured  []ma.Multiaddr // empty for a peer that connected to us
	bytesIn     uint64
	bad         int
	bannedUntil time.Time
	dialErr     error // of the last attempt, nil after a success
	silence     silence
	found       Source // how, if it is not configured
	local       bool   // whoever named it is on this host, where it may be, too
}

// newPeerBook allows the configured peers and those listed, or all if none are listed.
func newPeerBook(banTime time.Duration, configured []peer.AddrInfo, allowed []peer.ID) *peerBook {
	b := &peerBook{banTime: banTime, peers: map[peer.ID]*peerRecord{}, named: map[peer.ID]int{}}
	if len(allowed) > 0 {
		b.allowed = map[peer.ID]bool{}
	}
	for _, info := range configured {
		b.peers[info.ID] = &peerRecord{configured: info.Addrs}
		if b.allowed != nil {
			b.allowed[info.ID] = true
		}
	}
	for _, p := range allowed {
		b.allowed[p] = true
	}
	return b
}

// admits says whether p may be connected.
func (b *peerBook) admits(p peer.ID) bool {
	return (b.allowed == nil || b.allowed[p]) && b.bannedFor(p) == 0
}

// record returns the record of p; the caller holds mu.
func (b *peerBook) record(p peer.ID) *peerRecord {
	r, ok := b.peers[p]
	if !ok {
		b.makeRoom()
		r = &peerRecord{}
		b.peers[p] = r
	}
	return r
}

// makeRoom forgets strangers, first those who are not banned.
func (b *peerBook) makeRoom() {
	for _, banned := range []bool{false, true} {
		for p, r := range b.peers {
			if len(b.peers) < maxStrangers {
				return
			}
			if len(r.configured) == 0 && time.Now().Before(r.bannedUntil) == banned {
				delete(b.peers, p)
			}
		}
	}
}

func (b *peerBook) received(p peer.ID, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(p).bytesIn += uint64(bytes)
}

// misbehaved counts a bad message, and says whether the peer is banned from now on.
func (b *peerBook) misbehaved(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.record(p)
	now := time.Now()
	if now.Before(b.lenientUntil) {
		return false
	}
	if !r.bannedUntil.IsZero() && now.After(r.bannedUntil) {
		r.bad, r.bannedUntil = 0, time.Time{} // the ban is over: start again
	}
	r.bad++
	if r.bad < maxBad || !r.bannedUntil.IsZero() {
		return false
	}
	r.bannedUntil = now.Add(b.banTime)
	return true
}

// bannedFor returns how long p is still banned, 0 if it is not.
func (b *peerBook) bannedFor(p peer.ID) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.peers[p]
	if !ok {
		return 0
	}
	return max(0, time.Until(r.bannedUntil))
}

// silence returns what setSilence noted of p.
func (b *peerBook) silence(p peer.ID) silence {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, ok := b.peers[p]; ok {
		return r.silence
	}
	return silence{}
}

func (b *peerBook) setSilence(p peer.ID, s silence) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(p).silence = s
}

func (b *peerBook) dialled(p peer.ID, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.record(p).dialErr = err
}

// describe says of each configured peer that is not connected why it is not.
func (b *peerBook) describe(connected func(peer.ID) bool) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for p, r := range b.peers {
		switch {
		case connected(p):
		case time.Now().Before(r.bannedUntil):
			out = append(out, fmt.Sprintf("%s (banned: it sent blocks nobody wanted)", p))
		case len(r.configured) > 0 && r.dialErr != nil:
			out = append(out, fmt.Sprintf("%s (not connected: %s)", p, lastLine(r.dialErr)))
		case len(r.configured) > 0:
			out = append(out, fmt.Sprintf("%s at %s (not connected)", p, r.configured[0]))
		}
	}
	return out
}

// InterceptPeerDial implements libp2p's ConnectionGater.
func (b *peerBook) InterceptPeerDial(p peer.ID) bool { return b.admits(p) }

// InterceptAddrDial implements libp2p's ConnectionGater. The address is what a name was resolved to:
// one that somebody gave leads to no other place by it. Those that are configured may be anywhere.
func (b *peerBook) InterceptAddrDial(p peer.ID, addr ma.Multiaddr) bool {
	b.mu.Lock()
	r, ok := b.peers[p]
	trusted, local := ok && len(r.configured) > 0 || b.named[p] > 0, ok && r.local
	b.mu.Unlock()
	return trusted || checkFound(addr, local) == nil
}

// allowDial lets any address of p be dialled, as those of configured peers, until the function that
// it returns is called: whoever runs this node has named it.
func (b *peerBook) allowDial(p peer.ID) (done func()) {
	count := func(n int) {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.named[p] += n; b.named[p] == 0 {
			delete(b.named, p)
		}
	}
	count(1)
	return func() { count(-1) }
}

// isConfigured says whether p is kept connected.
func (b *peerBook) isConfigured(p peer.ID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r, ok := b.peers[p]
	return ok && len(r.configured) > 0
}

// setFound notes how p was found.
func (b *peerBook) setFound(p peer.ID, from Source, local bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.record(p)
	r.found, r.local = from, local
}

// noteFound notes how p was found, of whom nothing of that kind is known.
func (b *peerBook) noteFound(p peer.ID, from Source) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.record(p); r.found == FoundInbound {
		r.found = from
	}
}

// InterceptAccept implements libp2p's ConnectionGater: who it is is not known yet.
func (b *peerBook) InterceptAccept(network.ConnMultiaddrs) bool { return true }

// InterceptSecured implements libp2p's ConnectionGater: the peer has proven who it is, and nothing
// else was exchanged, in either direction.
func (b *peerBook) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return b.admits(p)
}

// InterceptUpgraded implements libp2p's ConnectionGater.
func (b *peerBook) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// known lists the peers that are configured or on record.
func (b *peerBook) known() []peer.ID {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]peer.ID, 0, len(b.peers))
	for p := range b.peers {
		out = append(out, p)
	}
	return out
}

// info describes p as far as the book knows it.
func (b *peerBook) info(p peer.ID) PeerInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	info := PeerInfo{ID: p.String()}
	if r, ok := b.peers[p]; ok {
		info.BytesIn, info.Bad, info.Banned = r.bytesIn, r.bad, time.Now().Before(r.bannedUntil)
		info.Found = r.found
		if len(r.configured) > 0 {
			info.Addr, info.Found = r.configured[0].String(), FoundConfigured
		}
	}
	return info
}
