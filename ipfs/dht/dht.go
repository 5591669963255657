package dht

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	kadrecords "github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"golang.org/x/sync/errgroup"
)

const (
	prefix protocol.ID = "/ipcs"
	// Protocol is what nodes of this table speak, and no other node.
	Protocol = prefix + "/kad/1.0.0"
	// Validity is for how long a node keeps a record. It is to be told again before.
	Validity = 30 * time.Minute
	// maxFound is how many providers of one thing are told of.
	maxFound = 32
	// parallelProvides are under way at a time, each for provideTime at most.
	parallelProvides, provideTime = 4, 30 * time.Second
)

var (
	// ErrAlone says that there is nobody to ask or to tell: it may be otherwise soon.
	ErrAlone   = errors.New("no node of the DHT is connected yet")
	errNowhere = fmt.Errorf("this node listens on no address that others may dial: %w", ErrAlone)
)

// Config says what the DHT may do on its host.
type Config struct {
	// Server says that others may ask this node, and that it is told of what is elsewhere. Only a server
	// tells of what it has.
	Server bool
	// Admits says whether a peer may be asked, and others be told of it.
	Admits func(peer.ID) bool
	// Usable returns those of somebody's addresses that may be dialled, a few at most. It does not
	// change what it is given.
	Usable func([]ma.Multiaddr) []ma.Multiaddr
}

// A DHT is this node's part of the table.
type DHT struct {
	self peer.ID
	kad  *kad.IpfsDHT
}

// New takes part in the DHT over a host, which has to bound what peers send, and to stay open until Close.
func New(h host.Host, cfg Config) (*DHT, error) {
	mode := kad.ModeClient
	if cfg.Server {
		mode = kad.ModeServer
	}
	d, err := kad.New(h,
		kad.ProtocolPrefix(prefix), kad.Mode(mode), kad.DisableValues(), // and no bootstrap peers
		kad.ProviderDatastore(newRecords()),
		kad.ProviderManagerOpts(
			kadrecords.Cache(noCache{}), kadrecords.ProvideValidity(Validity),
			kadrecords.ProviderAddrTTL(Validity), kadrecords.CleanupInterval(Validity/2)),
		kad.AddressFilter(cfg.Usable),
		kad.RoutingTableFilter(func(_ any, p peer.ID) bool { return cfg.Admits(p) }),
		kad.QueryFilter(func(_ any, p peer.AddrInfo) bool {
			known := h.Network().Connectedness(p.ID) == network.Connected
			return isID(p.ID) && cfg.Admits(p.ID) && (known || len(cfg.Usable(p.Addrs)) > 0)
		}))
	if err != nil {
		return nil, fmt.Errorf("start the DHT: %w", err)
	}
	return &DHT{h.ID(), d}, nil
}

// isID says whether what somebody sent as the ID of a peer is one.
func isID(p peer.ID) bool {
	_, err := peer.IDFromBytes([]byte(p))
	return err == nil
}

// Find returns providers of something, at most maxFound, that others have named: their addresses may be anything. It
// waits for those that it asks, until ctx ends. It fails where nobody is there to be asked.
func (d *DHT) Find(ctx context.Context, key cid.Cid) ([]peer.AddrInfo, error) {
	var found []peer.AddrInfo
	for p := range d.kad.FindProvidersAsync(ctx, key, maxFound+1) { // this node may be one
		if p.ID != d.self && isID(p.ID) && len(found) < maxFound {
			found = append(found, p)
		}
	}
	if len(found) == 0 && d.kad.RoutingTable().Size() == 0 {
		return nil, ErrAlone
	}
	return found, nil
}

// Announce tells those nodes that are to know of these things that this one has them. All keep it
// for Validity, whatever the third argument says. It fails where nobody is there to be told, or some could not be.
func (d *DHT) Announce(ctx context.Context, keys []cid.Cid, _ time.Duration) error {
	if d.kad.Mode() != kad.ModeServer {
		return nil
	}
	if d.kad.RoutingTable().Size() == 0 {
		return ErrAlone
	}
	if len(d.kad.FilteredAddrs()) == 0 {
		return errNowhere
	}
	var g errgroup.Group
	g.SetLimit(parallelProvides)
	for _, key := range keys {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, provideTime)
			defer cancel()
			if err := d.kad.Provide(ctx, key, true); err != nil {
				return fmt.Errorf("tell the DHT of %s: %w", key, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// Close ends this node's part. What is under way ends with the contexts it was given, and what others have asked with
// their streams.
func (d *DHT) Close() error {
	if err := d.kad.Close(); err != nil {
		return fmt.Errorf("close the DHT: %w", err)
	}
	return nil
}
