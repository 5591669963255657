package routing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/ipfs/boxo/routing/http/client"
	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// requestTimeout is for a request with its answer, of maxAnswer bytes at most.
	requestTimeout = 10 * time.Second
	maxAnswer      = 1 << 20
	// announced is how many things one record has.
	announced = 512
)

// A Client asks a server who has something, and tells it what this node has.
type Client struct {
	url string
	api *client.Client
	web *http.Client
}

// CheckURL says whether a server can be there: an http or https URL without a path, or with that of the API.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Host == "") {
		err = errors.New("it is no URL of a server")
	}
	if err == nil {
		_, err = client.New(s)
	}
	if err != nil {
		return fmt.Errorf("router %q: %w (an example: http://10.0.0.1:8181)", s, err)
	}
	return nil
}

// NewClient returns the client of a server for the node with this key, which listens on what addrs
// returns.
func NewClient(server string, key crypto.PrivKey, addrs func() []ma.Multiaddr) (*Client, error) {
	if err := CheckURL(server); err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("router %q: %w", server, err)
	}
	web := &http.Client{
		Timeout:   requestTimeout,
		Transport: &client.ResponseBodyLimitedTransport{RoundTripper: http.DefaultTransport.(*http.Transport).Clone(), LimitBytes: maxAnswer, UserAgent: "ipcs"},
		// Who is configured is who answers: a redirect may lead anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	api, err := client.New(server, client.WithHTTPClient(web), client.WithIdentity(key), client.WithProviderInfoFunc(id, addrs))
	if err != nil {
		return nil, fmt.Errorf("router %q: %w", server, err)
	}
	return &Client{url: server, api: api, web: web}, nil
}

// Close closes idle connections.
func (c *Client) Close() { c.web.CloseIdleConnections() }

// IsLocal says whether a server is on this host.
func IsLocal(server string) bool {
	u, err := url.Parse(server)
	return err == nil && slices.Contains([]string{"localhost", "127.0.0.1", "::1"}, u.Hostname())
}

// Find returns providers of something: at most maxFound, each with at most maxAddrs addresses.
func (c *Client) Find(ctx context.Context, key cid.Cid) (found []peer.AddrInfo, err error) {
	records, err := c.api.FindProviders(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("ask router %s who has %s: %w", c.url, key, err)
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	for len(found) < maxFound && records.Next() {
		r := records.Val()
		if r.Err != nil {
			return found, fmt.Errorf("ask router %s who has %s: %w", c.url, key, r.Err)
		}
		if info, ok := providerOf(r.Val); ok {
			found = append(found, info)
		}
	}
	return found, nil
}

// providerOf is what a record says, if it is one of a provider. Older servers have another schema.
func providerOf(r types.Record) (info peer.AddrInfo, ok bool) {
	var id *peer.ID
	var addrs []types.Multiaddr
	switch v := r.(type) {
	case *types.PeerRecord:
		id, addrs = v.ID, v.Addrs
	//lint:ignore SA1019 servers may still answer with it
	case *types.BitswapRecord:
		id, addrs = v.ID, v.Addrs
	}
	if id == nil {
		return info, false
	}
	info.ID = *id
	for _, a := range addrs[:min(len(addrs), maxAddrs)] {
		if a.Multiaddr != nil {
			info.Addrs = append(info.Addrs, a.Multiaddr)
		}
	}
	return info, true
}

// Announce tells the server that this node has these things, for some time. It is to be told again
// before.
func (c *Client) Announce(ctx context.Context, keys []cid.Cid, ttl time.Duration) error {
	for batch := range slices.Chunk(keys, announced) {
		//lint:ignore SA1019 there is no other API for it; see the package comment
		if _, err := c.api.ProvideBitswap(ctx, batch, ttl); err != nil {
			return fmt.Errorf("tell router %s what is here: %w", c.url, err)
		}
	}
	return nil
}
