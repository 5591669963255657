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
	"github.com/ipfs/kubo/client/rpc"
	caopts "github.com/ipfs/kubo/core/coreiface/options"
	mh "github.com/multiformats/go-multihash"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
)

const (
	// maxRequests bounds the requests for single blocks of a Client that are under way.
	maxRequests = 128
	// findTimeout is the time a daemon is given to find a block.
	findTimeout = 30 * time.Second
	// A request that found no daemon is repeated after firstPause, which doubles up to lastPause.
	firstPause = 50 * time.Millisecond
	lastPause  = time.Second
)

// clientHelp is what to do when no daemon answers, for who has not said.
const clientHelp = "is ipcs-snapshotter running? Start it, give the address of another daemon with --ipfs-api, or use --repo DIR to work without one"

var (
	// ErrNoDaemon says that nobody answers at the address.
	ErrNoDaemon = errors.New("no daemon answers")
	// errBrokenOff says that a daemon ended before its answer was complete.
	errBrokenOff = errors.New("the daemon broke off")
)

var _ ipfs.Node = (*Client)(nil)

// Options say how a Client deals with its daemon.
type Options struct {
	// Timeout is how long the daemon may look for a block that it does not have, and how long
	// a pin may wait for one; default 30 s.
	Timeout time.Duration
	// Patience is how long a request is repeated that finds no daemon, or that a daemon which
	// stops breaks off. Default: not at all.
	Patience time.Duration
	// Requests bounds the requests for single blocks that are under way; default 128.
	Requests int
	// Help says what to do when no daemon answers. Default: what a user of convert can do.
	Help string
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = findTimeout
	}
	if o.Requests <= 0 {
		o.Requests = maxRequests
	}
	if o.Help == "" {
		o.Help = clientHelp
	}
	return o
}

// A Client is an ipfs.Node over the RPC of a daemon.
type Client struct {
	api  *rpc.HttpApi
	http *http.Client
	addr string
	opts Options
	// What blocks are read into: each *[]byte is empty, with room for a leaf.
	buffers sync.Pool
	single  atomic.Bool // the daemon gives one block a request
	turns   turns
}

// New returns a client of the daemon at addr: the path of a socket or of Kubo's repository,
// Auto, a multiaddr such as /ip4/127.0.0.1/tcp/5001 or /unix/PATH, or a URL. It does not
// connect.
func New(addr string) (*Client, error) { return NewWith(addr, Options{}) }

// NewWith is New with options.
func NewWith(addr string, opts Options) (*Client, error) {
	opts = opts.withDefaults()
	url, client, err := dialAddr(addr, opts.Requests+4*manyRequests)
	if err != nil {
		return nil, err
	}
	api, err := rpc.NewURLApiWithClient(url, client)
	if err != nil {
		return nil, fmt.Errorf("IPFS API at %s: %w", redact(addr), err)
	}
	return &Client{api: api, http: client, addr: redact(addr), opts: opts, turns: newTurns(opts.Requests)}, nil
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
	var data []byte
	err := c.patiently(ctx, func() (err error) {
		data, err = c.get(ctx, id)
		return err
	})
	return data, err
}

// get is one request for a block.
func (c *Client) get(ctx context.Context, id cid.Cid) ([]byte, error) {
	done, err := c.turns.take(ctx)
	if err != nil {
		return nil, c.notGot(ctx, id, err)
	}
	defer done()
	resp, err := c.send(ctx, c.api.Request("block/get", id.String()).Option("timeout", c.opts.Timeout.String()))
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
	late := errors.Is(ctx.Err(), context.DeadlineExceeded) || ctx.Err() == nil && strings.HasSuffix(err.Error(), context.DeadlineExceeded.Error())
	if late {
		return fmt.Errorf("%s: %w in time by the IPFS daemon at %s, nor by its peers (%w)", what, ipfs.ErrNotFound, c.addr, err)
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
	group.SetLimit(c.opts.Requests)
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
	_, err := c.BlockSize(ctx, id)
	if errors.Is(err, ipfs.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// BlockSize returns the size of a block that the daemon has: ipfs.ErrNotFound, wrapped, if it
// does not.
func (c *Client) BlockSize(ctx context.Context, id cid.Cid) (int, error) {
	if err := checkCid(id); err != nil {
		return 0, err
	}
	what := "look for block " + id.String()
	local, err := c.api.WithOptions(caopts.Api.Offline(true))
	if err != nil {
		return 0, c.failed(ctx, what, err)
	}
	var size int
	err = c.patiently(ctx, func() error {
		stat, err := local.Block().Stat(ctx, path.FromCid(id))
		if err != nil {
			return c.failed(ctx, what, err)
		}
		size = stat.Size()
		return nil
	})
	return size, err
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
	return c.patiently(ctx, func() error { return c.put(ctx, blocks) })
}

func (c *Client) put(ctx context.Context, blocks []ipfs.Block) error {
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
