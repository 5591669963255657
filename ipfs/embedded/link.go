package embedded

import (
	"io"
	"log/slog"
	"sync"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/time/rate"
)

// linkRate is how many peers that are heard of on the link are taken, after maxFound at once.
const linkRate = rate.Limit(1)

// A discovery tells of this node on its links and hears of others, from Start until Close.
type discovery interface {
	Start() error
	io.Closer
}

// link takes what a discovery hears of. Anybody on the link says what he likes, so that it is worth no more than a
// hint: it is dialled when somebody wants what nobody else has.
type link struct {
	discovery
	finder *finder
	busy   func() bool // whether somebody waits for a block
	rate   *rate.Limiter

	mu     sync.RWMutex // held while something is taken
	closed bool
}

// openLink starts a discovery, which start makes, if others can connect to the host. A link that does not want it leaves the node
// without: it is logged, and the node has its other ways.
func openLink(h host.Host, start func(host.Host, func(peer.AddrInfo)) discovery, f *finder, busy func() bool, log *slog.Logger) *link {
	l := &link{finder: f, busy: busy, rate: rate.NewLimiter(linkRate, maxFound)}
	if !isReachable(h) {
		log.Warn("peers on the link are not looked for: this node listens on no address that they could reach")
		return l
	}
	l.discovery = start(h, l.heard)
	if err := l.Start(); err != nil {
		log.Warn("peers on the link are not found", "err", err)
	}
	return l
}

// heard takes a peer.
func (l *link) heard(p peer.AddrInfo) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed || !l.rate.Allow() {
		return
	}
	l.finder.add(p, FoundMDNS, false)
	if l.busy() {
		l.finder.lack(nil)
	}
}

// close ends the discovery; nothing is taken afterwards.
func (l *link) close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	if l.discovery == nil {
		return nil
	}
	return l.Close()
}
