// Package blobs is the node as the content store sees it (content.Node): whole blobs, which an embedded node serves peers from the store of
// objects, and Kubo from its own repository. What is not here is fetched.
//
// Concurrency. All methods may be called by any number of goroutines. What is dropped is freed a little later, by one goroutine, since finding out what
// else needs it costs a walk over all that is pinned, for one blob or for a thousand; Close ends it.
package blobs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
)

const (
	// freeDelay is how long blobs are gathered before they are freed, freeAgain after how long it is tried again, and freeTimeout how long that may take, or closeTimeout at the end.
	freeDelay, freeAgain = time.Second, time.Minute
	freeTimeout          = 10 * time.Minute
	closeTimeout         = 5 * time.Second
	// lingerTime is longer than a store keeps what came lately, and nothing needs.
	lingerTime = 2 * time.Hour
	// rootTime is how long it may take to find out whether a root is here.
	rootTime = 2 * time.Second
	// putBytes is how much Kubo is given at a time.
	putBytes = 8 << 20
)

// A Node keeps blocks and pins.
type Node interface {
	ipfs.Getter
	ipfs.Local
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
	// turn is held to read while a blob is kept, and to write while pins of such that were dropped are removed: one of them may be kept again.
	turn sync.RWMutex

	mu      sync.Mutex // guards what follows
	dropped map[ipfs.Pin]time.Time
	freeing map[ipfs.Pin]time.Time // that were dropped
	// lingering are roots of one block that are here though nothing needs them: a store with a limit keeps for a while what came lately.
	lingering map[cid.Cid]time.Time
	wake      chan struct{}
	stop      context.CancelFunc
	wg        sync.WaitGroup
}

// New returns Blobs that end with Close.
func New(opts Options) *Blobs {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	ctx, stop := context.WithCancel(context.Background())
	b := &Blobs{opts: opts, dropped: map[ipfs.Pin]time.Time{}, lingering: map[cid.Cid]time.Time{}, wake: make(chan struct{}, 1), stop: stop}
	b.wg.Go(func() { b.freeAll(ctx) })
	return b
}

// Close frees what was dropped.
func (b *Blobs) Close() error {
	b.stop()
	b.wg.Wait()
	return nil
}

// Keep implements content.Node.
func (b *Blobs) Keep(ctx context.Context, path string, f ipfs.File, name string) error {
	err := b.pinned(ctx, f, name, func() error {
		if b.opts.Elsewhere {
			return b.put(ctx, path, f)
		}
		return b.opts.Store.Adopt(path, f)
	})
	if err != nil { // what that leaves, as on a full disk, is freed
		b.Drop(ipfs.Pin{Root: f.Cid, Name: name})
	}
	return err
}

// KeepFetched implements content.Node.
func (b *Blobs) KeepFetched(ctx context.Context, f ipfs.File, name string) error {
	return b.pinned(ctx, f, name, func() error {
		b.opts.Store.Hold(f.Cid)
		return b.opts.Fetcher.Ensure(ctx, f)
	})
}

// Root implements content.Node.
func (b *Blobs) Root(ctx context.Context, d digest.Digest) (cid.Cid, int64, error) {
	hash, err := hex.DecodeString(d.Encoded())
	if err != nil || d.Algorithm() != digest.SHA256 {
		return cid.Undef, 0, ipfs.ErrNotFound
	}
	raw := ipfs.RawCid(string(hash))
	root := cid.NewCidV1(cid.DagProtobuf, raw.Hash())
	// Who asks may hold what others wait for: a Kubo that does not answer has nothing.
	ctx, cancel := context.WithTimeout(ctx, rootTime)
	defer cancel()
	if here, err := b.opts.Node.Has(ctx, root); err != nil || !here {
		return cid.Undef, 0, errors.Join(err, ipfs.ErrNotFound)
	}
	data, err := b.opts.Node.Get(ctx, root)
	if err != nil {
		return cid.Undef, 0, err
	}
	size, err := ipfs.FileSize(ipfs.Block{Cid: root, Data: data})
	if err != nil || ipfs.LayoutBlob.NumLeaves(size) == 1 {
		return cid.Undef, 0, errors.Join(err, ipfs.ErrNotFound) // something else
	}
	return root, size, nil
}

// KeepRoot implements content.Node. Kubo, which would fetch all of what it pins, has it pinned by who put it there.
func (b *Blobs) KeepRoot(ctx context.Context, f ipfs.File, name string) error {
	if b.opts.Elsewhere {
		return nil
	}
	return b.pinned(ctx, f, name, func() error {
		b.opts.Store.Hold(f.Cid)
		return nil
	})
}

// pinned pins what keep keeps.
func (b *Blobs) pinned(ctx context.Context, f ipfs.File, name string, keep func() error) error {
	pin := ipfs.Pin{Root: f.Cid, Name: name}
	w, err := wrapper(pin)
	if err != nil {
		return err
	}
	b.turn.RLock()
	defer b.turn.RUnlock()
	b.mu.Lock()
	for _, again := range []ipfs.Pin{pin, {Root: w.Cid, Name: name}} {
		delete(b.dropped, again)
		delete(b.freeing, again)
	}
	b.mu.Unlock()
	if err := keep(); err != nil {
		return err
	}
	if b.opts.Elsewhere {
		if err := b.opts.Node.Put(ctx, w); err != nil {
			return err
		}
		pin.Root = w.Cid
	}
	return b.opts.Node.Pin(ctx, pin)
}

// wrapper is a node that links to the root of a blob, and has the name of its pin: Kubo has one name for a root, and others pin the roots of blobs, too.
func wrapper(pin ipfs.Pin) (ipfs.Block, error) {
	var link, out []byte
	link = protowire.AppendTag(link, 1, protowire.BytesType)
	link = protowire.AppendBytes(link, pin.Root.Bytes())
	link = protowire.AppendTag(link, 2, protowire.BytesType)
	link = protowire.AppendBytes(link, nil)
	link = protowire.AppendTag(link, 3, protowire.VarintType)
	link = protowire.AppendVarint(link, 0)
	out = protowire.AppendTag(out, 2, protowire.BytesType)
	out = protowire.AppendBytes(out, link)
	out = protowire.AppendTag(out, 1, protowire.BytesType)
	out = protowire.AppendString(out, pin.Name)
	return ipfs.NewBlock(cid.DagProtobuf, out)
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

// Drop implements content.Node. Until the pin is removed, which is soon, a crash leaves it.
func (b *Blobs) Drop(pin ipfs.Pin) {
	b.mu.Lock()
	b.dropped[pin] = time.Now()
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// IsDropped says whether a blob is being freed.
func (b *Blobs) IsDropped(root cid.Cid) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, lingers := b.lingering[root]; lingers {
		return true
	}
	for _, pins := range []map[ipfs.Pin]time.Time{b.dropped, b.freeing} {
		for pin := range pins {
			if pin.Root.Equals(root) {
				return true
			}
		}
	}
	return false
}

// freeAll frees what is dropped, until ctx is done, and then what is left.
func (b *Blobs) freeAll(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-b.wake:
		case <-time.After(freeAgain):
		case <-ctx.Done():
		}
		select {
		case <-time.After(freeDelay):
		case <-ctx.Done():
		}
		b.free(ctx)
	}
}

// free removes the pins of what was dropped, and frees it. What fails is tried again.
func (b *Blobs) free(ctx context.Context) {
	timeout := freeTimeout
	if ctx.Err() != nil { // somebody waits for the end
		timeout = closeTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	b.mu.Lock()
	b.freeing, b.dropped = b.dropped, map[ipfs.Pin]time.Time{}
	pins := maps.Clone(b.freeing)
	b.mu.Unlock()
	if len(pins) == 0 {
		return
	}
	unused := make(map[cid.Cid]time.Time, len(pins))
	for pin, at := range pins { // what was dropped twice is unused since the last time
		if at.After(unused[pin.Root]) {
			unused[pin.Root] = at
		}
	}
	// The pins go last: they say after a crash that this was no blob for others.
	freed, err := b.opts.Store.FreeEach(ctx, unused, func(pin ipfs.Pin) bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		_, dropped := b.freeing[pin] // or it was kept again meanwhile
		return dropped
	})
	if err == nil {
		b.opts.Logger.Debug("freed blobs that were deleted", "blobs", len(unused), "bytes", freed)
		err = b.unpin(ctx)
	}
	if err != nil {
		b.opts.Logger.Warn("cannot free blobs that were deleted; trying again", "err", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for pin, at := range b.freeing {
		if _, again := b.dropped[pin]; !again {
			b.dropped[pin] = at
		}
	}
	b.freeing = nil
}

// unpin removes the pins of what was freed, but for those that were kept again meanwhile.
func (b *Blobs) unpin(ctx context.Context) error {
	b.turn.Lock()
	defer b.turn.Unlock()
	b.mu.Lock()
	pins := slices.Collect(maps.Keys(b.freeing))
	b.mu.Unlock()
	var errs []error
	for _, pin := range pins {
		err := b.unpinOne(ctx, pin)
		if err != nil {
			errs = append(errs, fmt.Errorf("unpin %q: %w", pin.Name, err))
			continue
		}
		lingers, herr := b.opts.Store.Has(ctx, pin.Root)
		b.mu.Lock()
		delete(b.freeing, pin)
		if pin.Root.Type() == cid.Raw && (lingers || herr != nil) {
			b.lingering[pin.Root] = time.Now()
		}
		b.mu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.lingering, func(_ cid.Cid, at time.Time) bool { return time.Since(at) > lingerTime })
	return errors.Join(errs...)
}

// unpinOne removes a pin: Pins gives those of wrappers as they are.
func (b *Blobs) unpinOne(ctx context.Context, pin ipfs.Pin) error {
	err := b.opts.Node.Unpin(ctx, pin)
	if b.opts.Elsewhere {
		w, werr := wrapper(pin)
		if werr == nil {
			werr = b.opts.Node.Unpin(ctx, ipfs.Pin{Root: w.Cid, Name: pin.Name})
		}
		err = errors.Join(err, werr)
	}
	return err
}

// MakeRoom implements content.Node.
func (b *Blobs) MakeRoom() bool { return b.opts.Store.MakeRoom() }

// Pins implements content.Node.
func (b *Blobs) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	return b.opts.Node.Pins(ctx, name)
}

// Open implements content.Node.
func (b *Blobs) Open(f ipfs.File) (*os.File, error) { return b.opts.Store.OpenFile(f) }

// Ensure returns when all of a file is here.
func (b *Blobs) Ensure(ctx context.Context, f ipfs.File) error { return b.opts.Fetcher.Ensure(ctx, f) }

// Load implements content.Node.
func (b *Blobs) Load(ctx context.Context, root cid.Cid, size int64) (ipfs.File, error) {
	return ipfs.LoadFile(ctx, b.opts.Nodes, root, size, ipfs.LayoutBlob)
}

// ReadAt implements content.Node.
func (b *Blobs) ReadAt(ctx context.Context, f ipfs.File, p []byte, off int64) (int, error) {
	return b.opts.Fetcher.ReadAt(ctx, f, p, off)
}
