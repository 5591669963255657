package transfer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

const (
	// bundle is how many bytes of blocks are gathered for one frame.
	bundle = 256 << 10
	// alone is the size from which a block has a frame of its own, which is worth keeping.
	alone = 32 << 10
	// compressible is the size from which it is tried.
	compressible = 256
	// preparers is how many frames of a stream are made, and written, at a time.
	preparers = 2
	// maxSecond bounds the streams of which it is more than one: peers that do not read may hold
	// up each other, and not those that do.
	maxSecond = 16
	// formRate is up to which rate of a stream, in bytes a second, compressed forms that are
	// there are faster: beyond, the peer decompresses more slowly than bytes come.
	formRate = 300e6
	// A peer that does not take writePiece bytes within writeTimeout, or a frame within
	// frameTimeout, is given up.
	writePiece   = 64 << 10
	writeTimeout = 10 * time.Second
	frameTimeout = time.Minute
)

// A Stream is one of a connection. Reset ends it for both sides, and what waits for it.
type Stream interface {
	io.ReadWriter
	SetWriteDeadline(t time.Time) error
	Reset() error
}

// A Store has blocks.
type Store interface {
	Get(ctx context.Context, c cid.Cid) ([]byte, error) // verified; ipfs.ErrNotFound if absent
	Has(ctx context.Context, c cid.Cid) (bool, error)
}

// Forms keeps blocks in compressed form, as zstd frames. It may have any or none.
type Forms interface {
	// Form returns the frame of a block, as it was kept, and the block's size.
	Form(c cid.Cid) (frame []byte, size int, ok bool)
	// Keep is offered a frame, which is not changed afterwards.
	Keep(c cid.Cid, frame []byte, size int)
}

// Counts are bytes: of blocks, and of the frames that they travelled in.
type Counts struct{ Blocks, Wire uint64 }

type counter struct{ blocks, wire atomic.Uint64 }

func (c *counter) add(blocks, wire int) {
	c.blocks.Add(uint64(blocks))
	c.wire.Add(uint64(wire))
}

func (c *counter) counts() Counts { return Counts{c.blocks.Load(), c.wire.Load()} }

// A Server answers wants out of a store.
type Server struct {
	store  Store
	forms  Forms // nil: none
	codec  *Codec
	second chan struct{} // see maxSecond
	news   news
	speed  speed // of the fast encoder
	sent   counter
	idlers idlers
}

// NewServer returns a Server. forms may be nil.
func NewServer(store Store, forms Forms, codec *Codec) *Server {
	return &Server{store: store, forms: forms, codec: codec, second: make(chan struct{}, maxSecond)}
}

// Sent returns what was sent.
func (s *Server) Sent() Counts { return s.sent.counts() }

// Serve answers what is wanted on a stream until its peer wants nothing more, which is no
// error, or ctx ends. The stream is over then.
func (s *Server) Serve(ctx context.Context, stream Stream) error {
	v := &serving{Server: s, stream: stream, queue: newQueue(stream)}
	defer s.idlers.enter(v)()
	defer s.news.leave(v.queue)
	g, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() {
		v.queue.close()
		_ = stream.Reset() // ends what reads and writes; it may be over already
	})
	defer stop()
	for i := range preparers {
		g.Go(func() error { return v.prepare(ctx, i == 0) })
	}
	g.Go(func() error { return v.queue.news(ctx) })
	g.Go(func() error { return v.read() })
	if err := g.Wait(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// serving is one stream that is served.
type serving struct {
	*Server
	stream  Stream
	queue   *queue
	pace    pace
	writing sync.Mutex
}

// read queues what is wanted. The error is io.EOF at the end.
func (v *serving) read() error {
	r, buf := bufio.NewReader(v.stream), make([]byte, maxRequest)
	for {
		asks, err := readRequest(r, buf)
		if err == nil {
			err = v.queue.add(asks)
		}
		if err != nil {
			return err
		}
	}
}

// prepare makes frames and writes them. All but the first preparer of a stream work only while
// few others do.
func (v *serving) prepare(ctx context.Context, first bool) error {
	for v.queue.await() {
		if err := v.turn(ctx, first); err != nil {
			return err
		}
	}
	return nil
}

// turn makes and writes one frame, if something is still wanted.
func (v *serving) turn(ctx context.Context, first bool) error {
	if !first {
		select {
		case v.second <- struct{}{}:
			defer func() { <-v.second }()
		case <-ctx.Done():
			return nil
		}
	}
	j, idled := v.queue.take()
	if j == nil {
		return nil // another was faster
	}
	defer v.queue.done()
	if idled {
		v.pace.idled()
	}
	return v.answer(ctx, j)
}

// batch is what goes out at once.
type batch struct {
	absent, here []part
	small        []part
	data         []byte // of small
	large        *large
}

// large is a block with a frame of its own: as it is, or compressed.
type large struct {
	part  part
	data  []byte
	frame []byte
}

// answer answers a want, and with it others of its rank that wait, as many as fit.
func (v *serving) answer(ctx context.Context, j *job) error {
	var b batch
	for n := 1; j != nil; n++ {
		if err := v.gather(ctx, &b, j); err != nil {
			return err
		}
		if b.large != nil || len(b.data) >= bundle || n == maxAnswers {
			break
		}
		j = v.queue.more(j.rank)
	}
	err := v.writeParts(frameAbsent, b.absent)
	if err == nil {
		err = v.writeParts(frameHere, b.here)
	}
	if err == nil && len(b.small) > 0 {
		err = v.writeSmall(b.small, b.data)
	}
	if err == nil && b.large != nil {
		err = v.writeLarge(j.cid, b.large)
	}
	return err
}

// gather adds the answer to a want.
func (v *serving) gather(ctx context.Context, b *batch, j *job) error {
	p := part{id: j.id}
	switch {
	case v.queue.isCancelled(j) && j.news:
		v.news.end(v.queue, j)
		b.here = append(b.here, p) // which ends it
		return nil
	case v.queue.isCancelled(j):
		b.absent = append(b.absent, p)
		return nil
	case j.have:
		return v.gatherHave(ctx, b, j)
	}
	if v.forms != nil && v.pace.slowerThan(formRate) {
		if frame, size, ok := v.forms.Form(j.cid); ok && size <= maxFrame && len(frame) < size {
			p.size = size
			b.large = &large{part: p, frame: frame}
			return nil
		}
	}
	data, err := v.store.Get(ctx, j.cid)
	if err != nil || len(data) > maxFrame {
		b.absent = append(b.absent, p)
		return ctx.Err()
	}
	p.size = len(data)
	if len(data) >= alone || len(b.data)+len(data) > maxFrame {
		b.large = &large{part: p, data: data}
		return nil
	}
	b.small, b.data = append(b.small, p), append(b.data, data...)
	return nil
}

// gatherHave adds whether a block is here. Who wants news of it waits from before that is looked at:
// it may come meanwhile.
func (v *serving) gatherHave(ctx context.Context, b *batch, j *job) error {
	if j.news {
		v.news.enter(v.queue, j)
	}
	p := part{id: j.id}
	has, err := v.store.Has(ctx, j.cid) // a disk that fails has nothing to give
	switch {
	case err == nil && has:
		v.news.end(v.queue, j)
		b.here = append(b.here, p)
	case j.told:
		v.queue.waitOn(j)
	default:
		p.more, j.told = j.news, j.news
		b.absent = append(b.absent, p)
	}
	return ctx.Err()
}

func (v *serving) writeParts(k kind, parts []part) error {
	if len(parts) == 0 {
		return nil
	}
	if err := v.write(header{kind: k, parts: parts}, nil); err != nil {
		return err
	}
	v.queue.settle(parts)
	return nil
}

func (v *serving) writeSmall(parts []part, data []byte) error {
	if frame := v.compress(data); frame != nil {
		return v.write(header{kind: frameZstd, parts: parts, size: len(data), payload: len(frame)}, frame)
	}
	return v.write(header{kind: frameRaw, parts: parts, size: len(data)}, data)
}

func (v *serving) writeLarge(c cid.Cid, l *large) error {
	if l.frame == nil {
		if l.frame = v.compress(l.data); l.frame != nil && v.forms != nil && worthKeeping(len(l.frame), len(l.data)) {
			v.forms.Keep(c, l.frame, len(l.data))
		}
	}
	if l.frame != nil {
		l.data = nil // it may take long to write
	}
	if l.frame == nil {
		return v.write(header{kind: frameRaw, parts: []part{l.part}, size: l.part.size}, l.data)
	}
	return v.write(header{kind: frameZstd, parts: []part{l.part}, size: l.part.size, payload: len(l.frame)}, l.frame)
}

// compress returns the compressed data if that is worth its time, and else nil.
func (v *serving) compress(data []byte) []byte {
	if len(data) < compressible || !v.pace.slowerThan(v.speed.perSecond()) {
		return nil
	}
	start := time.Now()
	frame := v.codec.fast.EncodeAll(data, make([]byte, 0, len(data)))
	v.speed.did(len(data), time.Since(start))
	if len(frame) >= len(data)-len(data)/16 {
		return nil
	}
	return clipped(frame)
}

// write writes a frame. The wants that it answers are no longer open then.
func (v *serving) write(h header, payload []byte) error {
	v.queue.answered(h.parts)
	buf := appendHeader(make([]byte, 0, 64+16*len(h.parts)), h)
	if len(payload) <= writePiece {
		buf, payload = append(buf, payload...), nil
	}
	v.writing.Lock()
	defer v.writing.Unlock()
	start, n := time.Now(), len(buf)+len(payload)
	v.sent.add(h.size, n) // before the peer can tell
	for _, data := range [][]byte{buf, payload} {
		for len(data) > 0 {
			piece := data[:min(len(data), writePiece)]
			data = data[len(piece):]
			until := time.Now().Add(writeTimeout)
			if last := start.Add(frameTimeout); until.After(last) {
				until = last
			}
			if err := v.stream.SetWriteDeadline(until); err != nil {
				return fmt.Errorf("write frame: %w", err)
			}
			if _, err := v.stream.Write(piece); err != nil {
				return fmt.Errorf("write frame: %w", err)
			}
		}
	}
	v.pace.wrote(n, time.Since(start))
	return nil
}
