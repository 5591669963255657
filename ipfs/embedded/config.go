package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	defaultTimeout = 30 * time.Second
	defaultBanTime = 10 * time.Minute
)

var errClosed = errors.New("the node is closed")

// A Store keeps blocks and pins on this machine. *objects.Store is one.
type Store interface {
	Get(ctx context.Context, c cid.Cid) ([]byte, error) // ipfs.ErrNotFound if absent
	Has(ctx context.Context, c cid.Cid) (bool, error)
	BlockSize(ctx context.Context, c cid.Cid) (int, error)
	Put(ctx context.Context, blocks ...ipfs.Block) error
	Cache(ctx context.Context, blocks ...ipfs.Block) error // Put of what peers have as well
	Pin(ctx context.Context, pin ipfs.Pin) error
	Unpin(ctx context.Context, pin ipfs.Pin) error
	Pins(ctx context.Context, name string) ([]ipfs.Pin, error)
}

// Config says who the node is and whom it talks to.
type Config struct {
	Listen   []string      // multiaddrs (TCP); empty: do not listen
	Peers    []string      // multiaddrs with /p2p/ID of peers that are kept connected
	Allow    []string      // IDs of the peers that may be connected, besides Peers; empty: all
	KeyFile  string        // identity, created 0600 if absent; "": a new one each time
	Routers  []string      // URLs of servers of /routing/v1, which know who has what
	DHT      bool          // find and be found in a DHT of ipcs nodes; it needs SwarmKey or Allow
	MDNS     bool          // find and be found on the links of this machine, if others can connect
	NoHints  bool          // do not dial peers that images name (Node.Hint)
	SwarmKey string        // path of a private network key, "" for none
	Timeout  time.Duration // how long a block may take to come from peers; default 30 s
	BanTime  time.Duration // how long a peer that sent wrong blocks is refused; default 10 min
	Logger   *slog.Logger  // default: discard
	// Forms keeps blocks in compressed form for peers. Default: nothing is kept.
	Forms Forms
	// Roots returns the layers that are pinned or used here. Others are told of them, and asked who
	// has them when blocks are wanted that nobody who is connected has. Default: none.
	Roots func(context.Context) []cid.Cid
	// Keys returns what else others are told of: the keys by which FindBlob finds this node. Default: none.
	Keys func(context.Context) []cid.Cid
	// Blobs returns the file of LayoutBlob of a blob, without its leaves, by its digest: what peers are told. Default: nothing.
	Blobs func(ctx context.Context, digest string) (ipfs.File, bool)
	// Withheld says which blocks of the store peers do not get, over no protocol. It must be quick. Default: none.
	Withheld func(cid.Cid) bool
}

// Forms keeps blocks in compressed form, as zstd frames. It may lose any of them at any time.
type Forms interface {
	// Form returns the frame of a block, as it was kept, and the block's size.
	Form(c cid.Cid) (frame []byte, size int, ok bool)
	// Keep is offered a frame, which is not changed afterwards.
	Keep(c cid.Cid, frame []byte, size int)
}

func (c Config) withDefaults() Config {
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	if c.BanTime <= 0 {
		c.BanTime = defaultBanTime
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// parsePeers groups the addresses by peer.
func parsePeers(addrs []string) ([]peer.AddrInfo, error) {
	byID := map[peer.ID]int{}
	var infos []peer.AddrInfo
	for _, s := range addrs {
		info, err := peer.AddrInfoFromString(s)
		if err != nil {
			return nil, fmt.Errorf("peer address %q: %w; it should look like /ip4/192.0.2.1/tcp/4001/p2p/12D3Koo", s, err)
		}
		i, ok := byID[info.ID]
		if !ok {
			byID[info.ID] = len(infos)
			infos = append(infos, *info)
			continue
		}
		infos[i].Addrs = append(infos[i].Addrs, info.Addrs...)
	}
	return infos, nil
}

// parseAllowed parses the IDs of peers.
func parseAllowed(ids []string) ([]peer.ID, error) {
	var allowed []peer.ID
	for _, s := range ids {
		id, err := peer.Decode(s)
		if err != nil {
			return nil, fmt.Errorf("ID of a peer %q: %w; it should look like 12D3Koo…, without an address", s, err)
		}
		allowed = append(allowed, id)
	}
	return allowed, nil
}

// A PeerInfo describes a peer.
type PeerInfo struct {
	ID        string
	Addr      string // of the connection, else the first configured
	Connected bool
	Found     Source // how it became known
	BytesIn   uint64 // of blocks that were wanted
	Bad       int    // messages it sent with blocks that nobody wanted
	Banned    bool
}

// Traffic is bytes: of blocks, and of the frames that they travelled in.
type Traffic struct{ ReceivedBlocks, ReceivedWire, SentBlocks, SentWire uint64 }

// A NotFoundError says that a block could not be had, and what was tried. It is
// ipfs.ErrNotFound, and the error of the context if that ran out first.
type NotFoundError struct {
	Cid    cid.Cid
	Peers  []string // that were tried, each with its ID and what became of it
	Waited time.Duration
	Cause  error // the context's error, or nil
}

func (e *NotFoundError) Error() string {
	if len(e.Peers) == 0 {
		return fmt.Sprintf("block %s is not on this node, and it has no peers to ask", e.Cid)
	}
	return fmt.Sprintf("block %s: not found in %s; peers tried: %s",
		e.Cid, e.Waited.Round(time.Millisecond), strings.Join(e.Peers, ", "))
}

// Unwrap makes errors.Is find ipfs.ErrNotFound and the cause.
func (e *NotFoundError) Unwrap() []error {
	if e.Cause != nil {
		return []error{ipfs.ErrNotFound, e.Cause}
	}
	return []error{ipfs.ErrNotFound}
}
