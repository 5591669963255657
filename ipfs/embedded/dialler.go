package embedded

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

const (
	minRedial = 100 * time.Millisecond
	maxRedial = 5 * time.Second
	// busyRedial bounds the delay while somebody waits for a block.
	busyRedial = 500 * time.Millisecond
)

// A dialler keeps the configured peers connected, with one goroutine for each.
type dialler struct {
	host host.Host
	book *peerBook
	busy func() bool // whether somebody waits for a block
	log  *slog.Logger

	kicks map[peer.ID]chan struct{} // wakes the peer's goroutine; never changed
	wg    sync.WaitGroup
}

func newDialler(h host.Host, book *peerBook, peers []peer.AddrInfo, busy func() bool, log *slog.Logger) *dialler {
	d := &dialler{host: h, book: book, busy: busy, log: log, kicks: map[peer.ID]chan struct{}{}}
	for _, p := range peers {
		if p.ID != h.ID() {
			d.kicks[p.ID] = make(chan struct{}, 1)
		}
	}
	return d
}

// start dials until ctx ends; wait for it with wg.
func (d *dialler) start(ctx context.Context, peers []peer.AddrInfo) {
	d.host.Network().Notify(&network.NotifyBundle{
		DisconnectedF: func(_ network.Network, c network.Conn) { d.kick(c.RemotePeer()) },
	})
	for _, p := range peers {
		if _, ok := d.kicks[p.ID]; !ok {
			continue
		}
		d.host.ConnManager().Protect(p.ID, "configured")
		d.wg.Go(func() { d.keep(ctx, p) })
	}
}

// kick makes the peer's goroutine look at the connection now.
func (d *dialler) kick(p peer.ID) {
	if ch, ok := d.kicks[p]; ok {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

// demand dials all that are not connected, now.
func (d *dialler) demand() {
	for p := range d.kicks {
		if d.host.Network().Connectedness(p) != network.Connected {
			d.kick(p)
		}
	}
}

// keep dials p whenever it is not connected.
func (d *dialler) keep(ctx context.Context, p peer.AddrInfo) {
	delay := minRedial
	var dialled time.Time // when it last was a success
	for ctx.Err() == nil {
		if d.host.Network().Connectedness(p.ID) == network.Connected {
			d.wait(ctx, p.ID, 0)
			if time.Since(dialled) >= maxRedial {
				delay = minRedial
			}
			continue
		}
		if ban := d.book.bannedFor(p.ID); ban > 0 {
			_ = pause(ctx, ban)
			continue
		}
		if time.Since(dialled) < maxRedial { // it may take connections and drop them: not in a loop
			_ = pause(ctx, delay)
			delay = d.next(delay)
		}
		if d.dial(ctx, p) {
			dialled = time.Now()
			continue
		}
		// A kick does not shorten the pause below minRedial: demand comes in bursts.
		_ = pause(ctx, minRedial)
		d.wait(ctx, p.ID, delay/2+rand.N(delay/2))
		delay = d.next(delay)
	}
}

// next returns the delay after this one.
func (d *dialler) next(delay time.Duration) time.Duration {
	if d.busy() {
		return min(2*delay, busyRedial)
	}
	return min(2*delay, maxRedial)
}

func (d *dialler) dial(ctx context.Context, p peer.AddrInfo) bool {
	// libp2p would refuse to dial an address for some time after it failed.
	if s, ok := d.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(p.ID)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := d.host.Connect(ctx, p)
	d.book.dialled(p.ID, err)
	if err != nil {
		d.log.Debug("cannot dial peer", "peer", p.ID, "err", lastLine(err))
		return false
	}
	d.log.Info("peer connected", "peer", p.ID)
	return true
}

// wait returns when the peer is kicked, ctx ends, or after a time unless that is 0.
func (d *dialler) wait(ctx context.Context, p peer.ID, delay time.Duration) {
	var timeout <-chan time.Time
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ctx.Done():
	case <-timeout:
	case <-d.kicks[p]:
	}
}

// pause waits, and returns the error of ctx if that ends first.
func pause(ctx context.Context, delay time.Duration) error {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// lastLine returns what matters of libp2p's dial errors, which have a line for
// each address.
func lastLine(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
