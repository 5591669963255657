package kubo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/path"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/ipfs/kubo/client/rpc"
	caopts "github.com/ipfs/kubo/core/coreiface/options"
	mh "github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// maxRequests bounds the block requests of one Fetch that are under way.
	maxRequests = 16
	// getTimeout is the time a daemon is given to find a block.
	getTimeout = 30 * time.Second
)

// ErrNoDaemon says that nobody answers at the address.
var ErrNoDaemon = errors.New("no daemon answers")

var _ ipfs.Node = (*Client)(nil)

// A Client is an ipfs.Node over the RPC of a daemon.
type Client struct {
	api  *rpc.HttpApi
	http *http.Client
	addr string
	// What blocks are read into: each *[]byte is empty, with room for a leaf.
	buffers sync.Pool
	single  atomic.Bool // the daemon gives one block a request
}

// New returns a client of the daemon at addr: /unix/PATH or the path of a socket, a
// multiaddr such as /ip4/127.0.0.1/tcp/5001, or a URL. It does not connect.
func New(addr string) (*Client, error) {
	url, client, err := dialAddr(addr)
	if err != nil {
		return nil, err
	}
	api, err := rpc.NewURLApiWithClient(url, client)
	if err != nil {
		return nil, fmt.Errorf("IPFS API at %s: %w", redact(addr), err)
	}
	return &Client{api: api, http: client, addr: redact(addr)}, nil
}

// Close implements io.Closer. It ends idle connections; the daemon goes on.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Get implements ipfs.Getter.
func (c *Client) Get(ctx context.Context, id cid.Cid) ([]byte, error) {
	if err := checkCid(id); err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, c.api.Request("block/get", id.String()).Option("timeout", getTimeout.String()))
	if err != nil {
		return nil, c.notGot(ctx, id, err)
	}
	defer resp.Cancel()
	data, err := c.read(resp.Output)
	if err != nil {
		return nil, c.notGot(ctx, id, err)
	}
	if err := ipfs.Verify(id, data); err != nil {
		return nil, fmt.Errorf("IPFS API at %s: %w", c.addr, err)
	}
	return data, nil
}

// read reads a block, which limitBodies bounds, into a buffer that is used again: nobody
// says how long it will be, and growing memory for it costs more than a copy.
func (c *Client) read(r io.Reader) ([]byte, error) {
	space, ok := c.buffers.Get().(*[]byte)
	if !ok {
		s := make([]byte, 0, ipfs.LeafSize+bytes.MinRead)
		space = &s
	}
	defer c.buffers.Put(space)
	buf := bytes.NewBuffer(*space)
	if _, err := buf.ReadFrom(r); err != nil {
		return nil, err
	}
	return bytes.Clone(buf.Bytes()), nil
}

// notGot is failed for Get: a block that does not come in time is not found.
func (c *Client) notGot(ctx context.Context, id cid.Cid, err error) error {
	what := "get block " + id.String()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w: %w (IPFS API at %s)", what, ipfs.ErrNotFound, ctx.Err(), c.addr)
	}
	if ctx.Err() == nil && strings.HasSuffix(err.Error(), context.DeadlineExceeded.Error()) {
		return fmt.Errorf("%s: %w in %s (IPFS API at %s: %v)", what, ipfs.ErrNotFound, getTimeout, c.addr, err)
	}
	return c.failed(ctx, what, err)
}

// Fetch implements ipfs.Fetcher. A Kubo daemon stores what it fetches for us.
func (c *Client) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	seen := make(map[cid.Cid]struct{}, len(cids))
	var list []cid.Cid
	for _, id := range cids {
		if err := checkCid(id); err != nil {
			return err
		}
		if _, ok := seen[id]; !ok {
			seen[id] = struct{}{}
			list = append(list, id)
		}
	}
	left, missing, err := c.fetchMany(ctx, list, fn)
	if err == nil {
		err = c.fetchEach(ctx, left, fn)
	}
	if err == nil || errors.Is(err, ipfs.ErrNotFound) {
		err = errors.Join(err, missing)
	}
	return err
}

// fetchEach fetches blocks with one request each.
func (c *Client) fetchEach(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(maxRequests)
	var mu sync.Mutex // held while fn runs
	var missing error
	for _, id := range cids {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("fetch block %s: %w", id, err)
			}
			data, err := c.Get(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ipfs.ErrNotFound) {
				missing = err
				return nil
			}
			// After the first error of fn it is not called again.
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
			return fn(ipfs.Block{Cid: id, Data: data})
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return missing
}

// Has implements ipfs.Local.
func (c *Client) Has(ctx context.Context, id cid.Cid) (bool, error) {
	if err := checkCid(id); err != nil {
		return false, err
	}
	local, err := c.api.WithOptions(caopts.Api.Offline(true))
	if err != nil {
		return false, c.failed(ctx, "look for block "+id.String(), err)
	}
	_, err = local.Block().Stat(ctx, path.FromCid(id))
	if err == nil {
		return true, nil
	}
	if ipld.IsNotFound(err) {
		return false, nil
	}
	return false, c.failed(ctx, "look for block "+id.String(), err)
}

// Put implements ipfs.Putter, with one CAR stream.
func (c *Client) Put(ctx context.Context, blocks ...ipfs.Block) error {
	if len(blocks) == 0 {
		return nil
	}
	for _, b := range blocks {
		if err := b.Check(); err != nil {
			return err
		}
	}
	r, w := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() { w.CloseWithError(writeCar(w, blocks)) })
	defer wg.Wait()
	defer r.CloseWithError(context.Canceled)
	what := fmt.Sprintf("put %d blocks", len(blocks))
	resp, err := c.send(ctx, c.api.Request("dag/import").
		Option("pin-roots", false).Option("stats", true).Option("fast-provide-root", false).FileBody(r))
	if err != nil {
		return c.failed(ctx, what, err)
	}
	defer resp.Cancel()
	n, err := readImport(resp.Output)
	if err != nil {
		return c.failed(ctx, what, err)
	}
	if n != uint64(len(blocks)) {
		return c.failed(ctx, what, fmt.Errorf("the daemon took %d of them", n))
	}
	return nil
}

// send sends a request and turns an error response into an error.
func (c *Client) send(ctx context.Context, req rpc.RequestBuilder) (*rpc.Response, error) {
	resp, err := req.Send(ctx)
	if err != nil {
		return nil, err
	}
	if resp.Error != nil {
		return nil, resp.Error
	}
	return resp, nil
}

// checkCid refuses what ipfs.Verify would refuse whatever the bytes are.
func checkCid(id cid.Cid) error {
	if !id.Defined() {
		return fmt.Errorf("no CID: %w", ipfs.ErrHash)
	}
	if p := id.Prefix(); p.MhType != mh.SHA2_256 || p.MhLength != 32 {
		return fmt.Errorf("block %s: %w: only sha2-256 is supported", id, ipfs.ErrHash)
	}
	return nil
}
