package routing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/ipfs/boxo/ipns"
	"github.com/ipfs/boxo/routing/http/server"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/boxo/routing/http/types/iter"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	mh "github.com/multiformats/go-multihash"
)

const (
	// maxBody bounds a request: more than a record of maxKeys, as JSON.
	maxBody = 1 << 20
	// maxSkew is how far a provider's clock may be from ours.
	maxSkew = time.Hour
	// maxRequests are answered at a time; others are told to come back.
	maxRequests = 64
	// findTimeout is for all of an answer out of memory.
	findTimeout = 10 * time.Second
)

// transport is what providers here are spoken to with.
const transport = "transport-bitswap"

var errRefused = errors.New("the record is refused")

// NewHandler serves a table over the API. allowed says whose records are taken, and told of.
func NewHandler(t *Table, allowed func(id string) bool, log *slog.Logger) http.Handler {
	api := server.Handler(&service{t, allowed}, server.WithRoutingTimeout(findTimeout),
		server.WithRecordsLimit(maxFound), server.WithStreamingRecordsLimit(maxFound))
	slots := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		// boxo does not look whether a signed record has all its fields.
		defer func() {
			if err := recover(); err != nil {
				log.Debug("a request broke the routing API", "from", r.RemoteAddr, "err", fmt.Sprint(err))
				http.Error(w, "invalid request", http.StatusBadRequest)
			}
		}()
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		api.ServeHTTP(w, r)
	})
}

// service implements boxo's DelegatedRouter: providers, and nothing else.
type service struct {
	table   *Table
	allowed func(id string) bool
}

var _ server.DelegatedRouter = (*service)(nil)

// FindProviders implements server.DelegatedRouter.
func (s *service) FindProviders(_ context.Context, c cid.Cid, _ int) (iter.ResultIter[types.Record], error) {
	var records []iter.Result[types.Record]
	for _, p := range s.table.Find(c.Hash()) {
		if s.allowed(p.ID.String()) {
			records = append(records, iter.Result[types.Record]{Val: record(p)})
		}
	}
	return iter.FromSlice(records), nil
}

func record(p peer.AddrInfo) *types.PeerRecord {
	r := &types.PeerRecord{Schema: types.SchemaPeer, ID: &p.ID, Protocols: []string{transport}}
	for _, a := range p.Addrs {
		r.Addrs = append(r.Addrs, types.Multiaddr{Multiaddr: a})
	}
	return r
}

// ProvideBitswap implements server.DelegatedRouter. boxo has checked the signature.
//
//lint:ignore SA1019 there is no other API for it; see the package comment
func (s *service) ProvideBitswap(_ context.Context, req *server.BitswapWriteProvideRequest) (time.Duration, error) {
	if !s.allowed(req.ID.String()) {
		return 0, fmt.Errorf("%w: provider %s is not allowed here", errRefused, req.ID)
	}
	if skew := time.Since(req.Timestamp); skew > maxSkew || skew < -maxSkew {
		return 0, fmt.Errorf("%w: it was made at %s", errRefused, req.Timestamp.UTC().Format(time.RFC3339))
	}
	if req.AdvisoryTTL <= 0 || len(req.Keys) > maxKeys {
		return 0, fmt.Errorf("%w: %d keys for %s; at most %d are allowed, for more than no time", errRefused, len(req.Keys), req.AdvisoryTTL, maxKeys)
	}
	if !s.table.isNews(req.ID, req.Timestamp) {
		return 0, fmt.Errorf("%w: there is a later one", errRefused)
	}
	keys := make([]mh.Multihash, 0, len(req.Keys))
	for _, c := range req.Keys {
		if !c.Defined() || len(c.Hash()) > maxHash {
			return 0, fmt.Errorf("%w: a key is no CID", errRefused)
		}
		keys = append(keys, c.Hash())
	}
	ttl := min(req.AdvisoryTTL, MaxTTL)
	return ttl, s.table.Add(peer.AddrInfo{ID: req.ID, Addrs: req.Addrs}, keys, ttl)
}

// maxHash bounds the bytes of a key.
const maxHash = 64

// FindPeers implements server.DelegatedRouter.
func (*service) FindPeers(context.Context, peer.ID, int) (iter.ResultIter[*types.PeerRecord], error) {
	return nil, routing.ErrNotFound
}

// GetClosestPeers implements server.DelegatedRouter.
func (*service) GetClosestPeers(context.Context, cid.Cid) (iter.ResultIter[*types.PeerRecord], error) {
	return nil, routing.ErrNotFound
}

// GetIPNS implements server.DelegatedRouter.
func (*service) GetIPNS(context.Context, ipns.Name) (*ipns.Record, error) {
	return nil, routing.ErrNotFound
}

// PutIPNS implements server.DelegatedRouter.
func (*service) PutIPNS(context.Context, ipns.Name, *ipns.Record) error {
	return routing.ErrNotSupported
}
