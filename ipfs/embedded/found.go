package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/thishost"

	"github.com/hinshun/ipcs/ipfs/dht"
)

const (
	// maxHintsOfImage of an image's hints are taken, and maxFound peers of each source known at a time.
	maxHintsOfImage = 8
	maxFound        = 64
	// maxFoundAddrs is how many addresses of one are dialled.
	maxFoundAddrs = 4
	// minHintPort keeps images from having well-known services of a network dialled.
	minHintPort = 1024
	// parallelDials and parallelLookups are under way at a time.
	parallelDials, parallelLookups = 8, 4
	// lookupEvery is how often it is asked who has one thing, while somebody waits for blocks.
	lookupEvery = 5 * time.Second
	lookupTime  = 10 * time.Second
	// fewWanted is up to how many raw blocks are asked for as well: each may be a blob by itself, and many are leaves of files.
	fewWanted = 4
	// maxLookups is how many things are asked for at a time.
	maxLookups = 64
	// A peer that was found and cannot be dialled is tried again after firstBackoff, then twice as
	// long, up to maxBackoff.
	firstBackoff, maxBackoff = time.Second, 5 * time.Minute
	// announceEvery is how often routers are told what is here, which counts for announceTime, and
	// announceCheck how soon others learn of what is new. When that fails it is tried again after announceRetry, and then
	// twice as long, up to the time between two of all.
	announceEvery, announceTime  = 3 * time.Minute, 10 * time.Minute
	announceCheck, announceRetry = 2 * time.Second, 5 * time.Second
)

// Source is how a peer was found.
type Source string

// The sources.
const (
	FoundConfigured Source = "configured"
	FoundHint       Source = "hint"   // an image named it
	FoundRouter     Source = "router" // a server of /routing/v1 did
	FoundDHT        Source = "dht"
	FoundMDNS       Source = "mdns"
	FoundInbound    Source = "" // it connected to this node
)

var errNotDialled = errors.New("addresses that others give for a peer are /ip4, /ip6 or /dns, then /tcp, then /p2p, and not of this host or the link alone")

// A router knows who has what. Its methods may be called concurrently.
type router interface {
	Find(ctx context.Context, key cid.Cid) ([]peer.AddrInfo, error)
	Announce(ctx context.Context, keys []cid.Cid, ttl time.Duration) error
}

// source is a router with its name.
type source struct {
	router
	name  Source
	local bool          // it is on this host, and may speak of peers that are as well
	every time.Duration // how often it is told all that is here
}

// finder knows peers that others have named, and dials them when blocks are wanted that nobody who
// is connected has: none of them is trusted, and so none is dialled for nothing.
type finder struct {
	host    host.Host
	book    *peerBook
	sources []source
	roots   func(context.Context) []cid.Cid // of layers that are here or used here; may be nil
	also    func(context.Context) []cid.Cid // what others are told of besides; may be nil
	log     *slog.Logger
	wake    chan struct{}

	mu     sync.Mutex
	lacks  bool                      // somebody waits for blocks that nobody had
	wanted map[cid.Cid]struct{}      // these blocks, since the last look
	asked  map[cid.Cid]time.Time     // when it was asked who has these
	sought map[cid.Cid]chan struct{} // keys that somebody waits for; closed when they were asked for
	found  map[peer.ID]*candidate
	wg     sync.WaitGroup
}

// candidate is a peer that was named.
type candidate struct {
	info    peer.AddrInfo
	from    Source
	since   time.Time
	again   time.Time // when it may be dialled
	backoff time.Duration
}

func newFinder(h host.Host, book *peerBook, roots func(context.Context) []cid.Cid, log *slog.Logger) *finder {
	return &finder{
		host: h, book: book, roots: roots, log: log, wake: make(chan struct{}, 1),
		wanted: map[cid.Cid]struct{}{}, asked: map[cid.Cid]time.Time{}, sought: map[cid.Cid]chan struct{}{}, found: map[peer.ID]*candidate{},
	}
}

// start works until ctx ends; wait for it with wg.
func (f *finder) start(ctx context.Context) {
	f.wg.Go(func() { f.run(ctx) })
	if f.roots == nil {
		return
	}
	for _, s := range f.sources {
		f.wg.Go(func() { f.announce(ctx, s) })
	}
}

// lack says that nobody who is connected has these blocks.
func (f *finder) lack(blocks []cid.Cid) {
	f.mu.Lock()
	f.lacks = true
	for _, c := range blocks {
		if len(f.wanted) < maxLookups {
			f.wanted[c] = struct{}{}
		}
	}
	f.mu.Unlock()
	nudge(f.wake)
}

func (f *finder) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
		}
		f.round(ctx)
	}
}

// round dials who is known, asks for what is wanted, and dials who was named then.
func (f *finder) round(ctx context.Context) {
	f.mu.Lock()
	sought, lacks := f.sought, f.lacks
	f.sought, f.lacks = map[cid.Cid]chan struct{}{}, false
	f.mu.Unlock()
	defer func() {
		for _, done := range sought {
			close(done)
		}
	}()
	f.dialAll(ctx) // those that are known need no lookup
	if f.lookUp(ctx, slices.Collect(maps.Keys(sought)), lacks) {
		f.dialAll(ctx)
	}
}

// lookUp asks who has what is sought and, if somebody lacks blocks, the layers that they may be of. It says whether anybody was asked.
func (f *finder) lookUp(ctx context.Context, sought []cid.Cid, lacks bool) bool {
	if len(f.sources) == 0 {
		return false
	}
	roots := sought
	if f.roots != nil && lacks {
		roots = append(roots, f.roots(ctx)...)
	}
	keys := f.keys(roots, time.Now())
	var g errgroup.Group
	g.SetLimit(parallelLookups)
	for _, key := range keys {
		for _, s := range f.sources {
			g.Go(func() error {
				ctx, cancel := context.WithTimeout(ctx, lookupTime)
				defer cancel()
				infos, err := s.Find(ctx, key)
				if err != nil && !errors.Is(err, dht.ErrAlone) {
					f.log.Info("cannot find out who has a layer", "layer", key.String(), "err", err)
				}
				for _, info := range infos {
					f.add(info, s.name, s.local)
				}
				return nil
			})
		}
	}
	_ = g.Wait() // they return none
	return len(keys) > 0
}

// keys are what to ask for: wanted blocks that may be roots of layers or blobs, and the layers that are used
// here, each once in a while.
func (f *finder) keys(roots []cid.Cid, now time.Time) []cid.Cid {
	f.mu.Lock()
	defer f.mu.Unlock()
	candidates := roots
	for c := range f.wanted {
		if c.Prefix().Codec == cid.DagProtobuf || len(f.wanted) <= fewWanted {
			candidates = append([]cid.Cid{c}, candidates...)
		}
	}
	clear(f.wanted)
	maps.DeleteFunc(f.asked, func(_ cid.Cid, at time.Time) bool { return now.Sub(at) >= lookupEvery })
	var keys []cid.Cid
	for _, c := range candidates {
		if _, ok := f.asked[c]; !ok && len(keys) < maxLookups {
			f.asked[c] = now
			keys = append(keys, c)
		}
	}
	return keys
}

// add notes a peer that was named, if it may be dialled.
func (f *finder) add(info peer.AddrInfo, from Source, local bool) {
	info.Addrs = dialableIf(info.Addrs, local)
	if len(info.Addrs) == 0 || info.ID == f.host.ID() || !f.book.admits(info.ID) || f.book.isConfigured(info.ID) {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.found[info.ID]; ok {
		if c.from != from && c.backoff == 0 {
			return // it was not found wanting: nobody talks this node out of it
		}
		if !slices.EqualFunc(c.info.Addrs, info.Addrs, ma.Multiaddr.Equal) {
			c.info, c.from, c.again, c.backoff = info, from, time.Time{}, 0
			f.book.setFound(info.ID, from, local)
		}
		return
	}
	f.makeRoom(from)
	f.found[info.ID] = &candidate{info: info, from: from, since: time.Now()}
	f.book.setFound(info.ID, from, local)
}

// makeRoom forgets the peer of a source that was named first, if there are too many; the caller
// holds mu.
func (f *finder) makeRoom(from Source) {
	n := 0
	var oldest *candidate
	for id, c := range f.found {
		if c.from != from {
			continue
		}
		n++
		connected := f.host.Network().Connectedness(id) == network.Connected
		if !connected && (oldest == nil || c.since.Before(oldest.since)) {
			oldest = c
		}
	}
	if n >= maxFound && oldest != nil {
		delete(f.found, oldest.info.ID)
	}
}

// dialAll dials those that are not connected and may be tried.
func (f *finder) dialAll(ctx context.Context) {
	now := time.Now()
	var dial []*candidate
	f.mu.Lock()
	for id, c := range f.found {
		if now.After(c.again) && f.host.Network().Connectedness(id) != network.Connected {
			dial = append(dial, c)
		}
	}
	f.mu.Unlock()
	var g errgroup.Group
	g.SetLimit(parallelDials)
	for _, c := range dial {
		g.Go(func() error {
			f.dial(ctx, c)
			return nil
		})
	}
	_ = g.Wait() // they return none
}

func (f *finder) dial(ctx context.Context, c *candidate) {
	f.mu.Lock()
	info := c.info
	f.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	err := f.host.Connect(ctx, info)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		c.backoff, c.again = 0, time.Now().Add(firstBackoff)
		f.log.Info("peer connected", "peer", info.ID, "found", string(c.from))
		return
	}
	c.backoff = min(max(2*c.backoff, firstBackoff), maxBackoff)
	c.again = time.Now().Add(c.backoff)
	f.log.Debug("cannot dial peer that was found", "peer", info.ID, "found", string(c.from), "err", lastLine(err))
}

// parseHint parses the address of a peer that an image names.
func parseHint(s string) (peer.AddrInfo, error) {
	addr, err := ma.NewMultiaddr(s)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	info, err := peer.AddrInfoFromP2pAddr(addr)
	if err != nil {
		return peer.AddrInfo{}, err
	}
	if len(info.Addrs) != 1 {
		return peer.AddrInfo{}, errNotDialled
	}
	if err := checkFound(info.Addrs[0], false); err != nil {
		return peer.AddrInfo{}, err
	}
	port, err := info.Addrs[0].ValueForProtocol(ma.P_TCP)
	if err == nil && len(port) < 4 || len(port) == 4 && port < fmt.Sprint(minHintPort) {
		err = fmt.Errorf("port %s is below %d", port, minHintPort)
	}
	return *info, err
}

// checkFound says whether an address that somebody gave may be dialled: TCP and nothing around it,
// and no address of this host or its link, where there may be what trusts this host. local allows
// loopback.
func checkFound(addr ma.Multiaddr, local bool) error {
	if len(addr) != 2 || addr[1].Protocol().Code != ma.P_TCP {
		return errNotDialled
	}
	switch addr[0].Protocol().Code {
	case ma.P_IP4, ma.P_IP6:
		return checkIP(addr, local)
	case ma.P_DNS, ma.P_DNS4, ma.P_DNS6:
		return nil // what it resolves to is checked when it is dialled
	}
	return errNotDialled
}

func checkIP(addr ma.Multiaddr, local bool) error {
	ip, err := manet.ToIP(addr)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotDialled, err)
	}
	if ip.IsLoopback() && local {
		return nil
	}
	if parsed, ok := netip.AddrFromSlice(ip); !ok || thishost.Reached(parsed) {
		return fmt.Errorf("%w: %s", errNotDialled, ip)
	}
	return nil
}
