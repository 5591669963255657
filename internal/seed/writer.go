package seed

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"runtime"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/ipfs"
)

// GroupSize is up to how many bytes blocks are put together into one frame: what compresses better together,
// and what is read together with one of them.
const GroupSize = 512 << 10

// skippableMagic begins a frame that every decompressor of zstd skips (RFC 8878, 3.1.2). The table is in
// one. trailerMagic ends a seed.
const (
	skippableMagic = 0x184D2A50
	trailerMagic   = "ipcsseed"
)

// skipSize is the length of the beginning of such a frame. trailerSize is that of what ends the seed:
// the length of the compressed table, in 4 bytes, and trailerMagic.
const (
	skipSize    = 8
	trailerSize = 4 + len(trailerMagic)
)

// Write writes the seed of blocks to out, and returns where its head begins. Blocks that are read together, or
// are alike, should follow each other. mount are those that the layer is mounted by. The first error of blocks
// ends it.
func Write(ctx context.Context, codec *Codec, out io.Writer, blocks iter.Seq2[ipfs.Block, error], mount []ipfs.Block) (head int64, err error) {
	w := &writer{codec: codec, out: out, queue: make(chan *frame, runtime.GOMAXPROCS(0)), next: new(frame)}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.write(ctx) })
	group.Go(func() error {
		defer close(w.queue)
		return w.fill(ctx, group, blocks, mount)
	})
	if err := group.Wait(); err != nil {
		return 0, fmt.Errorf("write seed: %w", err)
	}
	if _, err := out.Write(seal(codec, w.table.bytes())); err != nil {
		return 0, fmt.Errorf("write seed: %w", err)
	}
	return w.last, nil
}

// A writer is the state of Write: next is its filling goroutine's, what follows its writing one's.
type writer struct {
	codec *Codec
	out   io.Writer
	queue chan *frame // in order

	next *frame

	table     tableWriter
	last, off int64 // where the last frame begins, and ends
}

// A frame is blocks on their way into the seed.
type frame struct {
	cids  []cid.Cid
	sizes []int
	data  []byte
	done  chan []byte // the frame, compressed
}

// fill puts blocks into frames.
func (w *writer) fill(ctx context.Context, group *errgroup.Group, blocks iter.Seq2[ipfs.Block, error], mount []ipfs.Block) error {
	for b, err := range blocks {
		if err == nil && len(w.next.data) > 0 && len(w.next.data)+len(b.Data) > GroupSize {
			err = w.flush(ctx, group)
		}
		if err == nil {
			err = w.add(b)
		}
		if err != nil {
			return err
		}
	}
	if err := w.flush(ctx, group); err != nil {
		return err
	}
	for _, b := range mount {
		if err := w.add(b); err != nil {
			return err
		}
	}
	if size := len(w.next.data); size == 0 || size > MaxMount {
		return fmt.Errorf("%d bytes to mount the layer by: %w", size, ErrTooLarge)
	}
	return w.flush(ctx, group)
}

func (w *writer) add(b ipfs.Block) error {
	if _, ok := Prefix(b.Cid); !ok || len(b.Data) > MaxFrame {
		return fmt.Errorf("block %s of %d bytes: %w", b.Cid, len(b.Data), ErrTooLarge)
	}
	f := w.next
	f.cids, f.sizes, f.data = append(f.cids, b.Cid), append(f.sizes, len(b.Data)), append(f.data, b.Data...)
	return nil
}

// flush has a frame compressed and written.
func (w *writer) flush(ctx context.Context, group *errgroup.Group) error {
	f := w.next
	w.next = new(frame)
	if len(f.cids) == 0 {
		return nil
	}
	f.done = make(chan []byte, 1)
	select {
	case w.queue <- f:
	case <-ctx.Done():
		return ctx.Err()
	}
	group.Go(func() error {
		f.done <- w.codec.compress(f.data)
		return nil
	})
	return nil
}

// write writes frames in order.
func (w *writer) write(ctx context.Context) error {
	for f := range w.queue {
		select {
		case compressed := <-f.done:
			if _, err := w.out.Write(compressed); err != nil {
				return err
			}
			w.table.add(len(compressed), f.cids, f.sizes)
			w.last = w.off
			w.off += int64(len(compressed))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// seal returns the end of a seed with this table.
func seal(codec *Codec, raw []byte) []byte {
	table := codec.compress(raw)
	b := binary.LittleEndian.AppendUint32(nil, skippableMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(table)+trailerSize))
	b = append(b, table...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(table)))
	return append(b, trailerMagic...)
}
