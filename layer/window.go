package layer

import (
	"context"
	"fmt"
	"io"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
)

// What a window gathers before it fetches: never more blocks than a node should want from
// its peers at once, and bounded bytes.
const (
	windowBlocks = 256
	windowBytes  = 16 << 20
	windowOps    = 4096 // raw segments and leaves: a byte each is a fair tar-split
)

// A window is a stretch of the tar: raw bytes, and leaves that flush fetches at once. While
// it is being written, the next one is fetched.
type window struct {
	src    Source
	w      io.Writer
	verify bool // hash leaves here, too: for those that nobody hashes later
	ops    []op
	cids   []cid.Cid
	want   map[cid.Cid]*leaf
	size   int
	// written tells how the window before this one was written; nil if nothing was, or
	// when it was waited for.
	written chan error
}

type op struct {
	raw  []byte
	leaf cid.Cid
	size int
}

// A leaf is one that a window wants.
type leaf struct {
	size int
	data []byte
}

func (w *window) raw(ctx context.Context, b []byte) error {
	return w.add(ctx, op{raw: b, size: len(b)})
}

func (w *window) leaf(ctx context.Context, c cid.Cid, size int) error {
	if _, ok := w.want[c]; !ok {
		if w.want == nil {
			w.want = make(map[cid.Cid]*leaf)
		}
		w.want[c] = &leaf{size: size}
		w.cids = append(w.cids, c)
	}
	return w.add(ctx, op{leaf: c, size: size})
}

func (w *window) add(ctx context.Context, o op) error {
	w.ops = append(w.ops, o)
	if w.size += o.size; w.size >= windowBytes || len(w.cids) >= windowBlocks || len(w.ops) >= windowOps {
		return w.flush(ctx)
	}
	return nil
}

// flush fetches the leaves, and starts to write all in order. Who calls it calls wait at the
// end, whatever happened.
func (w *window) flush(ctx context.Context) error {
	// A few bytes of a tar-split can make terabytes without any leaf.
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(w.cids) > 0 {
		if err := w.src.Fetch(ctx, w.cids, w.take); err != nil {
			return err
		}
	}
	if err := w.wait(); err != nil {
		return err
	}
	written := make(chan error, 1)
	go func(to io.Writer, ops []op, leaves map[cid.Cid]*leaf) {
		written <- writeOps(to, ops, leaves)
	}(w.w, w.ops, w.want)
	*w = window{src: w.src, w: w.w, verify: w.verify, written: written}
	return nil
}

// take takes a leaf as it arrives. One that is longer than it should be is refused before
// there are many: the sizes are what bounds a window.
func (w *window) take(b ipfs.Block) error {
	want, ok := w.want[b.Cid]
	if !ok {
		return nil
	}
	if err := checkLen(b.Cid, b.Data, want.size); err != nil {
		return err
	}
	if w.verify {
		if err := ipfs.Verify(b.Cid, b.Data); err != nil {
			return err
		}
	}
	want.data = b.Data
	return nil
}

// wait returns when the window before this one is written.
func (w *window) wait() error {
	if w.written == nil {
		return nil
	}
	err := <-w.written
	w.written = nil
	return err
}

func writeOps(to io.Writer, ops []op, leaves map[cid.Cid]*leaf) error {
	for _, o := range ops {
		b := o.raw
		if o.leaf.Defined() {
			b = leaves[o.leaf].data
			if err := checkLen(o.leaf, b, o.size); err != nil {
				return err
			}
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
	}
	return nil
}

func checkLen(c cid.Cid, data []byte, size int) error {
	if len(data) != size {
		return fmt.Errorf("leaf %s: %w: it has %d bytes, not %d", c, ipfs.ErrFile, len(data), size)
	}
	return nil
}
