// Package kubo speaks Kubo's RPC.
package kubo

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

var (
	_          ipfs.Node = (*Client)(nil)
	errNotDone           = errors.New("not written yet")
)

// A Client is an ipfs.Node over the RPC of a daemon.
type Client struct{}

// New returns a client of the daemon at addr.
func New(addr string) (*Client, error) { return nil, errNotDone }

// Get implements ipfs.Getter.
func (c *Client) Get(ctx context.Context, id cid.Cid) ([]byte, error) { return nil, errNotDone }

// Fetch implements ipfs.Fetcher.
func (c *Client) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	return errNotDone
}

// Put implements ipfs.Putter.
func (c *Client) Put(ctx context.Context, blocks ...ipfs.Block) error { return errNotDone }

// Has implements ipfs.Local.
func (c *Client) Has(ctx context.Context, id cid.Cid) (bool, error) { return false, errNotDone }

// Pin implements ipfs.Pinner.
func (c *Client) Pin(ctx context.Context, pin ipfs.Pin) error { return errNotDone }

// Unpin implements ipfs.Pinner.
func (c *Client) Unpin(ctx context.Context, pin ipfs.Pin) error { return errNotDone }

// Pins implements ipfs.Pinner.
func (c *Client) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) { return nil, errNotDone }

// Close implements io.Closer.
func (c *Client) Close() error { return nil }

// Identity says who the node behind a handler is.
type Identity interface {
	ID() string
	Addrs() []string
}

// NewHandler returns the handler of /api/v0.
func NewHandler(node ipfs.Node, id Identity, logger *slog.Logger) http.Handler {
	return http.NotFoundHandler()
}
