package kubo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
)

// Kubo's RPC gives one block a request, which costs more than the block where files are
// small. A Handler has one command besides: blocks/get takes up to maxMany CIDs, and
// answers with the sections of a CARv1 (and nothing before them), in any order. Blocks that
// could not be had are not among them. To a Client, a daemon that does not know the command
// is one that has block/get.
const (
	manyCommand = "blocks/get"
	maxMany     = 64
	// manyRequests are what a Fetch of few blocks is spread over.
	manyRequests = 4
	// manyBuffer gathers small blocks on their way.
	manyBuffer = 64 << 10
)

// blocksGet answers blocks/get.
func (h *handler) blocksGet(w http.ResponseWriter, r *http.Request, q url.Values) error {
	cids, err := h.cids(r, q)
	if err != nil {
		return err
	}
	if len(cids) > maxMany {
		return usage("more than %d blocks", maxMany)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Stream-Output", "1")
	out := bufio.NewWriterSize(w, manyBuffer)
	err = h.node.Fetch(r.Context(), cids, func(b ipfs.Block) error {
		return writeSection(out, b.Cid.Bytes(), b.Data)
	})
	if errors.Is(err, ipfs.ErrNotFound) {
		err = nil // the others were delivered
	}
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errBegun, err)
	}
	return nil
}

// A many is a Fetch by blocks/get.
type many struct {
	client *Client
	fn     func(ipfs.Block) error

	mu      sync.Mutex // held while fn runs
	left    map[cid.Cid]struct{}
	missing error // of blocks that the daemon could not get
	failed  error // of fn
}

// fetchMany calls fn with the blocks that blocks/get gives, and returns the others: that the
// daemon did not find (missing), and that are to be asked for one by one.
func (c *Client) fetchMany(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) (left []cid.Cid, missing, err error) {
	if c.single.Load() || len(cids) == 0 {
		return cids, nil, nil
	}
	m := &many{client: c, fn: fn, left: make(map[cid.Cid]struct{}, len(cids))}
	for _, id := range cids {
		m.left[id] = struct{}{}
	}
	var group errgroup.Group
	group.SetLimit(c.opts.Requests)
	size := min(maxMany, (len(cids)+manyRequests-1)/manyRequests)
	for part := range slices.Chunk(cids, size) {
		group.Go(func() error { m.part(ctx, part); return nil })
	}
	_ = group.Wait() // m has what they say
	if m.failed != nil {
		return nil, nil, m.failed
	}
	left = slices.DeleteFunc(slices.Clone(cids), func(id cid.Cid) bool { _, ok := m.left[id]; return !ok })
	return left, m.missing, nil
}

// part asks for some of the blocks. Where it breaks off, the rest stay in left.
func (m *many) part(ctx context.Context, cids []cid.Cid) {
	text := make([]string, len(cids))
	for i, id := range cids {
		text[i] = id.String()
	}
	resp, err := m.client.send(ctx, m.client.api.Request(manyCommand, text...).Option("timeout", m.client.opts.Timeout.String()))
	if err != nil {
		if isUnknown(err) {
			m.client.single.Store(true)
		}
		return
	}
	defer resp.Cancel()
	br := bufio.NewReaderSize(resp.Output, manyBuffer) // limitBodies bounds it
	for {
		b, err := readBlock(br)
		if err == io.EOF {
			m.end(cids)
			return
		}
		if err != nil || !m.deliver(ctx, b) {
			return
		}
	}
}

// deliver hands on a block that was asked for, and says whether more are wanted.
func (m *many) deliver(ctx context.Context, b ipfs.Block) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failed == nil {
		m.failed = ctx.Err()
	}
	if _, ok := m.left[b.Cid]; !ok || m.failed != nil {
		return m.failed == nil
	}
	delete(m.left, b.Cid)
	m.failed = m.fn(b)
	return m.failed == nil
}

// end notes that the daemon has said all there is to some CIDs.
func (m *many) end(cids []cid.Cid) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range cids {
		if _, ok := m.left[id]; ok {
			delete(m.left, id)
			m.missing = fmt.Errorf("get block %s: %w (IPFS API at %s)", id, ipfs.ErrNotFound, m.client.addr)
		}
	}
}

// isUnknown knows what the RPC client makes of status 404.
func isUnknown(err error) bool { return strings.HasSuffix(err.Error(), "command not found") }
