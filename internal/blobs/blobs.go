// Package blobs is the node as the content store sees it (content.Node): whole blobs, which an embedded node serves peers from the store of
// objects, and Kubo from its own repository. What is not here is fetched.
//
// Concurrency. All methods may be called by any number of goroutines. What is dropped is freed a little later, by one goroutine, since finding out what
// else needs it costs a walk over all that is pinned, for one blob or for a thousand; Close ends it.
package blobs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	// freeDelay is how long blobs are gathered before they are freed.
	freeDelay = time.Second
	// putBytes is how much Kubo is given at a time.
	putBytes = 8 << 20
)

// A Node keeps blocks and pins.
type Node interface {
	ipfs.Putter
	ipfs.Pinner
}

// Options say what blobs are kept in.
type Options struct {
	Store   *objects.Store
	Fetcher *fetch.Fetcher
	Nodes   ipfs.Fetcher // where the nodes of files come from
	Node    Node
	// Elsewhere says that the node keeps blocks in a repository of its own, as Kubo does, and not in the Store.
	Elsewhere bool
	Logger    *slog.Logger
}

// Blobs implements content.Node.
type Blobs struct {
	opts Options

	mu      sync.Mutex // guards what follows
	dropped []cid.Cid
	wake    chan struct{}
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// New returns Blobs that end with Close.
func New(opts Options) *Blobs {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Blobs{opts: opts, wake: make(chan struct{}, 1), stop: stop}
	b.wg.Go(func() { b.free(ctx) })
	return b
}

// Close stops freeing. What was dropped just now goes when there is no room for it.
func (b *Blobs) Close() error {
	b.stop()
	b.wg.Wait()
	return nil
}

// Keep implements content.Node.
func (b *Blobs) Keep(ctx context.Context, path string, f ipfs.File, name string) error {
	var err error
	if b.opts.Elsewhere {
		err = errors.Join(b.put(ctx, path, f), os.Remove(path))
	} else {
		err = b.opts.Store.Adopt(path, f)
	}
	if err != nil {
		return err
	}
	return b.opts.Node.Pin(ctx, ipfs.Pin{Root: f.Cid, Name: name})
}

// KeepFetched implements content.Node.
func (b *Blobs) KeepFetched(ctx context.Context, f ipfs.File, name string) error {
	if err := b.opts.Fetcher.Ensure(ctx, f); err != nil {
		return err
	}
	return b.opts.Node.Pin(ctx, ipfs.Pin{Root: f.Cid, Name: name})
}

// put gives the node the blocks of a file.
func (b *Blobs) put(ctx context.Context, path string, f ipfs.File) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	var batch []ipfs.Block
	bytes := 0
	flush := func() error {
		err := b.opts.Node.Put(ctx, batch...)
		batch, bytes = batch[:0], 0
		return err
	}
	for i := range f.NumLeaves() {
		data := make([]byte, f.LeafLen(i))
		if _, err := io.ReadFull(file, data); err != nil {
			return fmt.Errorf("leaf %d of %s: %w", i, f.Cid, err)
		}
		leaf, err := ipfs.VerifiedBlock(f.Leaf(i), data)
		if err != nil {
			return err
		}
		batch = append(batch, leaf)
		if bytes += len(data); bytes >= putBytes {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if f.NumLeaves() > 1 {
		_, err = f.Build(func(node ipfs.Block) error {
			batch = append(batch, node)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return flush()
}

// Drop implements content.Node.
func (b *Blobs) Drop(ctx context.Context, pin ipfs.Pin) error {
	if err := b.opts.Node.Unpin(ctx, pin); err != nil {
		return err
	}
	b.mu.Lock()
	b.dropped = append(b.dropped, pin.Root)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
	return nil
}

// free frees what was dropped, until ctx is done.
func (b *Blobs) free(ctx context.Context) {
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(freeDelay):
		case <-ctx.Done():
			return
		}
		since := time.Now()
		b.mu.Lock()
		list := b.dropped
		b.dropped = nil
		b.mu.Unlock()
		if freed, err := b.opts.Store.Free(ctx, list, since); err != nil && ctx.Err() == nil {
			b.opts.Logger.Warn("cannot free blobs that were deleted; they go when there is no room", "err", err)
		} else {
			b.opts.Logger.Debug("freed blobs that were deleted", "blobs", len(list), "bytes", freed)
		}
	}
}

// Pins implements content.Node.
func (b *Blobs) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	return b.opts.Node.Pins(ctx, name)
}

// Open implements content.Node.
func (b *Blobs) Open(f ipfs.File) (*os.File, error) { return b.opts.Store.OpenFile(f) }

// Load implements content.Node.
func (b *Blobs) Load(ctx context.Context, root cid.Cid, size int64) (ipfs.File, error) {
	return ipfs.LoadFile(ctx, b.opts.Nodes, root, size, ipfs.LayoutBlob)
}

// ReadAt implements content.Node.
func (b *Blobs) ReadAt(ctx context.Context, f ipfs.File, p []byte, off int64) (int, error) {
	return b.opts.Fetcher.ReadAt(ctx, f, p, off)
}
