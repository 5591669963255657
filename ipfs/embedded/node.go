package embedded

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	bsnetwork "github.com/ipfs/boxo/bitswap/network"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/bitswap/server"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/transfer"
)

const (
	// What the bitswap server may have under way to a peer, and puts into one message. Both
	// go together: larger messages alone make it slower. So a peer that reads slowly holds eight
	// workers at most, and those of one address (connsPerAddress) leave some to others.
	maxOutstanding = 8 << 20
	messageSize    = 1 << 20
	serverWorkers  = 128
	// maxQueuedWants is generous, for clients that have no window.
	maxQueuedWants = 8192
	engineWorkers  = 8
	storeWorkers   = 16
)

var _ ipfs.Node = (*Node)(nil)

// A Node is an ipfs.Node in this process.
type Node struct {
	store  Store
	budget *budget
	online *online // nil: offline
}

// online is what a node with peers has, in the order in which it is started.
type online struct {
	host     host.Host
	book     *peerBook
	peers    []peer.AddrInfo
	net      bsnetwork.BitSwapNetwork
	streams  *blockStreams
	exchange *exchange
	blobs    *blobs
	server   *server.Server
	receiver *receiver
	dialler  *dialler
	finder   *finder
	dht      *dhtNode // nil: it takes part in none
	link     *link    // nil: nobody is looked for there
	hints    bool     // those of images are taken
	forget   func()   // the connections to routers
	packer   *packer  // nil: no forms are kept
	packing  sync.WaitGroup

	cancel context.CancelFunc
	once   sync.Once
	err    error
}

// Offline returns a node that knows no peers: what is not in the store is not found.
func Offline(store Store) *Node { return &Node{store: store, budget: newBudget(maxInFlight)} }

// world is what a node has of libp2p that is on sockets.
type world struct {
	host func(Config, *peerBook) (host.Host, error)
	link func(host.Host, func(peer.AddrInfo)) discovery
}

// Open starts a node. It returns at once, connected or not; ctx serves for its values
// only, and Close ends the node.
func Open(ctx context.Context, cfg Config, store Store) (*Node, error) {
	return open(ctx, cfg, store, world{newHost, newMDNS})
}

func open(ctx context.Context, cfg Config, store Store, w world) (*Node, error) {
	cfg = cfg.withDefaults()
	peers, err := parsePeers(cfg.Peers)
	if err != nil {
		return nil, err
	}
	allowed, err := parseAllowed(cfg.Allow)
	if err != nil {
		return nil, err
	}
	if cfg.DHT && cfg.SwarmKey == "" && len(allowed) == 0 {
		return nil, errOpenDHT
	}
	book := newPeerBook(cfg.BanTime, peers, allowed)
	if hasIdentity(cfg.KeyFile) {
		book.lenientUntil = time.Now().Add(restartGrace)
	}
	codec, err := transfer.NewCodec()
	if err != nil {
		return nil, err
	}
	h, err := w.host(cfg, book)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	guarded := newGuardedHost(h)
	o := &online{host: h, book: book, peers: peers, net: bsnet.NewFromIpfsHost(guarded), cancel: cancel, hints: !cfg.NoHints}
	seen := offered{store, cfg.Withheld}
	o.streams = newBlockStreams(h, book, seen, seen.forms(cfg.Forms), codec)
	o.exchange = newExchange(o.net, o.streams, book, cfg.Timeout, cfg.Logger)
	o.blobs = newBlobs(h, book, cfg.Blobs)
	o.dialler = newDialler(h, book, peers, o.exchange.busy, cfg.Logger)
	o.exchange.demand = o.dialler.demand
	o.finder = newFinder(h, book, cfg.Roots, cfg.Logger)
	o.finder.also = cfg.Keys
	o.exchange.lack = o.finder.lack
	if err := o.openSources(cfg, guarded.room); err != nil {
		cancel()
		return nil, errors.Join(err, h.Close())
	}
	o.server = server.New(ctx, o.net, served{seen},
		server.MaxOutstandingBytesPerPeer(maxOutstanding), server.WithTargetMessageSize(messageSize),
		server.MaxQueuedWantlistEntriesPerPeer(maxQueuedWants), server.TaskWorkerCount(serverWorkers),
		server.EngineTaskWorkerCount(engineWorkers), server.EngineBlockstoreWorkerCount(storeWorkers))
	o.receiver = &receiver{exchange: o.exchange, server: o.server}
	if cfg.Forms != nil {
		o.packer = newPacker(store, cfg.Forms, codec, cfg.Logger)
		o.packing.Go(func() { o.packer.run(ctx) })
	}
	o.start(ctx)
	if cfg.MDNS {
		o.link = openLink(h, w.link, o.finder, o.exchange.busy, cfg.Logger)
	}
	cfg.Logger.Info("node started", "id", h.ID(), "listen", h.Addrs(), "peers", len(peers))
	return &Node{store: store, budget: newBudget(maxInFlight), online: o}, nil
}

// openSources opens what knows who has what. What is open when it fails ends with the host.
func (o *online) openSources(cfg Config, room *messageRoom) (err error) {
	if o.finder.sources, o.forget, err = openRouters(cfg.Routers, o.host); err != nil || !cfg.DHT {
		return err
	}
	if o.dht, err = openDHT(o.host, o.book, room); err != nil {
		o.forget()
		return err
	}
	o.finder.sources = append(o.finder.sources, source{router: o.dht, name: FoundDHT, every: dhtEvery})
	return nil
}

// start starts what works until ctx ends.
func (o *online) start(ctx context.Context) {
	o.exchange.start(ctx)
	o.streams.start(ctx)
	o.blobs.start(ctx)
	o.net.Start(o.receiver)
	o.dialler.start(ctx, o.peers)
	o.finder.start(ctx)
}

// Close stops the node: first whoever asks, then who answers, then the network. It
// waits for all of them. The store stays open.
func (n *Node) Close() error {
	if n.online == nil {
		return nil
	}
	o := n.online
	o.once.Do(func() {
		o.exchange.close()
		o.cancel()
		if o.link != nil {
			o.err = o.link.close()
		}
		o.packing.Wait()
		o.dialler.wg.Wait()
		o.finder.wg.Wait()
		o.forget()
		if o.dht != nil {
			o.err = errors.Join(o.err, o.dht.close())
		}
		o.exchange.wg.Wait()
		o.streams.close()
		o.blobs.close()
		o.receiver.close()
		o.net.Stop()
		o.server.Close()
		if err := o.host.Close(); err != nil {
			o.err = errors.Join(o.err, fmt.Errorf("close libp2p: %w", err))
		}
	})
	return o.err
}

// ID returns the peer ID, or "" if the node is offline.
func (n *Node) ID() string {
	if n.online == nil {
		return ""
	}
	return n.online.host.ID().String()
}

// Addrs returns the addresses the node listens on, each with /p2p/ID.
func (n *Node) Addrs() []string {
	if n.online == nil {
		return nil
	}
	var out []string
	for _, a := range n.online.host.Addrs() {
		out = append(out, a.String()+"/p2p/"+n.ID())
	}
	return out
}

// Peers describes the peers that are configured, connected or banned.
func (n *Node) Peers() []PeerInfo {
	if n.online == nil {
		return nil
	}
	o := n.online
	ids := o.host.Network().Peers()
	for _, p := range o.book.known() {
		if !slices.Contains(ids, p) {
			ids = append(ids, p)
		}
	}
	slices.Sort(ids)
	var out []PeerInfo
	for _, p := range ids {
		info := o.book.info(p)
		if conns := o.host.Network().ConnsToPeer(p); len(conns) > 0 {
			info.Addr = conns[0].RemoteMultiaddr().String()
			info.Connected = o.host.Network().Connectedness(p) == network.Connected
		}
		if info.Connected || info.Banned || info.Addr != "" {
			out = append(out, info)
		}
	}
	return out
}

// Traffic counts what went over our own protocol, and not over bitswap.
func (n *Node) Traffic() Traffic {
	if n.online == nil {
		return Traffic{}
	}
	in, out := n.online.streams.received.Counts(), n.online.streams.server.Sent()
	return Traffic{
		ReceivedBlocks: in.Blocks, ReceivedWire: in.Wire, SentBlocks: out.Blocks, SentWire: out.Wire,
	}
}

// Connected returns the addresses of connected peers, each with /p2p/ID.
func (n *Node) Connected() []string {
	if n.online == nil {
		return nil
	}
	var out []string
	for _, c := range n.online.host.Network().Conns() {
		out = append(out, c.RemoteMultiaddr().String()+"/p2p/"+c.RemotePeer().String())
	}
	return out
}

// BlockSize returns the size of a block that is on this node.
func (n *Node) BlockSize(ctx context.Context, c cid.Cid) (int, error) {
	return n.store.BlockSize(ctx, c)
}

// Put implements ipfs.Putter. Peers that wait for one of the blocks get it.
func (n *Node) Put(ctx context.Context, blks ...ipfs.Block) error {
	for _, b := range blks {
		if err := b.Check(); err != nil {
			return err
		}
	}
	if err := n.store.Put(ctx, blks...); err != nil {
		return err
	}
	if err := n.tell(ctx, blks); err != nil {
		return err
	}
	if n.online != nil && n.online.packer != nil {
		n.online.packer.offer(blks)
	}
	return nil
}

// Cache stores blocks that came from peers, and that need not stay.
func (n *Node) Cache(ctx context.Context, blks ...ipfs.Block) error {
	if err := n.store.Cache(ctx, blks...); err != nil {
		return err
	}
	return n.tell(ctx, blks)
}

// tell gives blocks that are here now to peers that wait for them.
func (n *Node) tell(ctx context.Context, blks []ipfs.Block) error {
	if n.online == nil {
		return nil
	}
	news := make([]blocks.Block, 0, len(blks))
	for _, b := range blks {
		blk, err := blocks.NewBlockWithCid(b.Data, b.Cid)
		if err != nil {
			return fmt.Errorf("block %s: %w", b.Cid, err)
		}
		news = append(news, blk)
	}
	cids := make([]cid.Cid, len(blks))
	for i, b := range blks {
		cids[i] = b.Cid
	}
	n.Arrived(cids)
	return n.online.server.NotifyNewBlocks(ctx, news...)
}

// Arrived says that blocks are in the store, to peers that have asked for news of them. Who
// stores blocks other than by Put and Cache calls it.
func (n *Node) Arrived(cids []cid.Cid) {
	if n.online != nil {
		n.online.streams.server.Arrived(cids)
	}
}

// Has implements ipfs.Local.
func (n *Node) Has(ctx context.Context, c cid.Cid) (bool, error) { return n.store.Has(ctx, c) }

// Pin implements ipfs.Pinner.
func (n *Node) Pin(ctx context.Context, pin ipfs.Pin) error { return n.store.Pin(ctx, pin) }

// Unpin implements ipfs.Pinner.
func (n *Node) Unpin(ctx context.Context, pin ipfs.Pin) error { return n.store.Unpin(ctx, pin) }

// Pins implements ipfs.Pinner.
func (n *Node) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	return n.store.Pins(ctx, name)
}

// errNotFound says whether err means that the store does not have a block.
func errNotFound(err error) bool { return errors.Is(err, ipfs.ErrNotFound) }
