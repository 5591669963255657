//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/memory"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// parallelOpens bounds how many layers an image record makes us open at a time.
	parallelOpens = 8
	// maxCached bounds the bytes of indexes that are kept between Prepare of the layers and
	// the first mount. It is enough for half a million files.
	maxCached = 48 << 20
	// maxRecords bounds the image records that are remembered as fetched.
	maxRecords = 256
)

// An opener opens layers. Each layer is opened once at a time, by a goroutine of the
// opener, whoever asks for it; a caller that goes away does not stop it. Opened layers
// stay for a while, since the first mount needs them again.
type opener struct {
	src     layer.Source
	timeout time.Duration
	log     *slog.Logger
	slots   chan struct{} // for opens that an image record asked for
	// recorded is told of each image record.
	recorded func(image cid.Cid, m *layer.Image)
	running  sync.WaitGroup

	mu      sync.Mutex
	stop    []context.CancelFunc // of what runs; nil entries are free
	closed  bool
	flights map[cid.Cid]*flight
	cached  map[cid.Cid]*opened
	order   []cid.Cid           // of cached, the oldest first
	bytes   int                 // of cached
	records map[cid.Cid]cid.Cid // to the image's last layer, Undef if that is not known
}

// opened is a layer: its root, and its index as it is written, since decoded it takes three
// times the memory.
type opened struct {
	root  ipfs.Block
	index *layer.Encoded
	table func() (*fileTable, error) // its files, made once
}

func newOpened(root ipfs.Block, index *layer.Encoded) *opened {
	return &opened{root, index, sync.OnceValues(func() (*fileTable, error) { return newFileTable(index) })}
}

// A flight is a layer that is being opened.
type flight struct {
	done  chan struct{} // closed when layer and err are set
	layer *opened
	err   error
}

var errClosed = errors.New("the snapshotter is closed")

func newOpener(src layer.Source, timeout time.Duration, log *slog.Logger) *opener {
	return &opener{
		src: keepFrom(src, log), timeout: timeout, log: log,
		slots: make(chan struct{}, parallelOpens), recorded: noOrigins{}.Recorded,
		flights: make(map[cid.Cid]*flight),
		cached:  make(map[cid.Cid]*opened),
		records: make(map[cid.Cid]cid.Cid),
	}
}

// open returns the layer with this root within the time limit, and fails with
// ErrIndexUnavailable.
func (o *opener) open(ctx context.Context, root cid.Cid) (*opened, error) {
	// A little more than each attempt has, so that its own error, which knows the peers
	// that were asked, is the one that is seen.
	ctx, cancel := context.WithTimeout(ctx, o.timeout+o.timeout/16)
	defer cancel()
	start := time.Now()
	for {
		f, joined, err := o.join(ctx, root, max(o.timeout-time.Since(start), 0))
		if err != nil {
			return nil, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, o.unavailable(root, ctx.Err())
		}
		if f.err == nil {
			return f.layer, nil
		}
		if !joined || time.Since(start) >= o.timeout {
			return nil, o.unavailable(root, f.err)
		}
		// Another's attempt failed, which may have begun long ago: make one of our own.
	}
}

func (o *opener) unavailable(root cid.Cid, err error) error {
	digest, derr := mediatype.LayerDigest(root)
	if derr != nil {
		return derr
	}
	return fmt.Errorf("layer %s (layer root %s): %w within %v: %w; see that a node that has the image runs, that it is among this node's peers, and try again",
		digest, root, ErrIndexUnavailable, o.timeout, err)
}

// join returns the flight of a layer, and whether somebody else began it.
func (o *opener) join(ctx context.Context, root cid.Cid, limit time.Duration) (*flight, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if l, ok := o.cached[root]; ok {
		f := &flight{done: make(chan struct{}), layer: l}
		close(f.done)
		return f, true, nil
	}
	if f, ok := o.flights[root]; ok {
		return f, true, nil
	}
	f := &flight{done: make(chan struct{})}
	err := o.start(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		block, index, err := layer.OpenEncoded(ctx, o.src, root)
		o.finish(root, f, newOpened(block, index), err)
	})
	if err == nil {
		o.flights[root] = f
	}
	return f, false, err
}

// start runs fn in a goroutine that close ends and waits for. It is called with o.mu.
func (o *opener) start(ctx context.Context, fn func(context.Context)) error {
	if o.closed {
		return errClosed
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	slot := -1
	for i, f := range o.stop {
		if f == nil {
			slot = i
		}
	}
	if slot < 0 {
		o.stop = append(o.stop, nil)
		slot = len(o.stop) - 1
	}
	o.stop[slot] = cancel
	o.running.Add(1)
	go func() {
		defer o.running.Done()
		defer cancel()
		fn(ctx)
		o.mu.Lock()
		defer o.mu.Unlock()
		o.stop[slot] = nil
	}()
	return nil
}

// finish hands the result of a flight to all who wait for it.
func (o *opener) finish(root cid.Cid, f *flight, l *opened, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.flights, root)
	if err == nil {
		o.cache(root, l)
	}
	f.layer, f.err = l, err
	close(f.done)
}

// cache keeps a layer, and drops the oldest ones when they are too many.
func (o *opener) cache(root cid.Cid, l *opened) {
	if _, ok := o.cached[root]; ok {
		return
	}
	o.cached[root] = l
	o.order = append(o.order, root)
	o.bytes += l.index.Size()
	for o.bytes > maxCached && len(o.order) > 1 {
		o.drop(o.order[0])
	}
}

func (o *opener) drop(root cid.Cid) {
	l, ok := o.cached[root]
	if !ok {
		return
	}
	delete(o.cached, root)
	o.bytes -= l.index.Size()
	for i, c := range o.order {
		if c.Equals(root) {
			o.order = append(o.order[:i:i], o.order[i+1:]...)
			break
		}
	}
}

// forget drops layers that are not needed soon.
func (o *opener) forget(roots []cid.Cid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, root := range roots {
		o.drop(root)
	}
}

// roots returns the layers that are open, or being opened.
func (o *opener) roots() map[cid.Cid]bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	roots := make(map[cid.Cid]bool, len(o.cached)+len(o.flights))
	for root := range o.cached {
		roots[root] = true
	}
	for root := range o.flights {
		roots[root] = true
	}
	return roots
}

// release gives the memory of what was forgotten back to the system, behind the caller.
func (o *opener) release(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.start(ctx, func(context.Context) { memory.Release() }) // a process that ends gives back all
}

// prefetch begins to open all layers of an image, but those that known has, when one of
// them is prepared first. The record is a hint: if it cannot be had or lies, each layer
// is opened when it is prepared. locate is called before the record is wanted.
func (o *opener) prefetch(ctx context.Context, image cid.Cid, known func(root cid.Cid) bool, locate func(context.Context)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.records[image]; ok || !image.Defined() {
		return
	}
	if len(o.records) >= maxRecords {
		clear(o.records)
	}
	err := o.start(ctx, func(ctx context.Context) {
		locate(ctx)
		if err := o.openImage(ctx, image, known); err != nil {
			o.log.Info("image record is of no use: layers are opened one by one", "record", image, "err", err)
			o.mu.Lock()
			defer o.mu.Unlock()
			delete(o.records, image) // the next pull tries again
		}
	})
	if err == nil {
		o.records[image] = cid.Undef
	}
}

func (o *opener) openImage(ctx context.Context, image cid.Cid, known func(root cid.Cid) bool) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	record, err := o.record(ctx, image)
	if err != nil {
		return err
	}
	for i, l := range record.Layers {
		root, err := mediatype.RootCid(l.Digest)
		if err != nil {
			return err
		}
		if i == len(record.Layers)-1 {
			o.setTop(image, root)
		}
		if !known(root) {
			o.openAhead(ctx, ipfs.Block{Cid: root, Data: l.Block})
		}
	}
	// The first container will want it: then it is here.
	if _, err := o.fetchProfile(ctx, record); err != nil {
		o.log.Info("the profile that an image names is of no use", "record", image, "err", err)
	}
	return nil
}

func (o *opener) setTop(image, root cid.Cid) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.records[image]; ok {
		o.records[image] = root
	}
}

// top returns the last layer of an image, if its record is known. It is a hint.
func (o *opener) top(image cid.Cid) (cid.Cid, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	root := o.records[image]
	return root, root.Defined()
}

// openAhead begins to open a layer whose root block is at hand, unless it is open.
func (o *opener) openAhead(ctx context.Context, root ipfs.Block) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, cached := o.cached[root.Cid]
	_, flying := o.flights[root.Cid]
	if cached || flying {
		return
	}
	f := &flight{done: make(chan struct{})}
	err := o.start(ctx, func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, o.timeout)
		defer cancel()
		var index *layer.Encoded
		var err error
		select {
		case o.slots <- struct{}{}:
			defer func() { <-o.slots }()
			if index, err = layer.OpenEncodedBlock(ctx, o.src, root); err == nil {
				o.keep(ctx, root)
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
		l := newOpened(root, index)
		o.finish(root.Cid, f, l, err)
		if err == nil {
			_, _ = l.table() // beside the others; who needs it is told what is wrong
		}
	})
	if err == nil {
		o.flights[root.Cid] = f
	}
}

// close ends what runs and waits for it.
func (o *opener) close() {
	o.mu.Lock()
	o.closed = true
	for _, cancel := range o.stop {
		if cancel != nil {
			cancel()
		}
	}
	o.mu.Unlock()
	o.running.Wait()
}
