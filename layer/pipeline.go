package layer

import (
	"bytes"
	"context"
	"fmt"
	"runtime"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"
)

// A batch goes to the node when it holds this many bytes or blocks.
const (
	batchBytes  = 8 << 20
	batchBlocks = 1024
)

// A pipeline hashes leaves and puts blocks with one goroutine per core. What it holds is
// bounded: a queue of a few blocks, and one batch a goroutine.
type pipeline struct {
	group *errgroup.Group
	jobs  chan job
	done  <-chan struct{} // closed when a goroutine failed, or the caller gave up
	cause func() error    // why, once done is closed
}

// A job is a leaf to hash, or a block that only has to be put.
type job struct {
	block ipfs.Block
	sum   *[sumSize]byte // where the digest of a leaf goes; nil for a block
}

// newPipeline starts the goroutines, one for each core if workers is 0; wait ends them and must be called.
func newPipeline(ctx context.Context, dst ipfs.Putter, workers int) *pipeline {
	batch := batchBytes
	if workers > 0 {
		batch = 1 // whoever says how many has no use for many blocks at once
	} else {
		workers = runtime.GOMAXPROCS(0)
	}
	group, ctx := errgroup.WithContext(ctx)
	p := &pipeline{group: group, jobs: make(chan job, 4*workers), done: ctx.Done()}
	p.cause = func() error { return context.Cause(ctx) }
	for range workers {
		group.Go(func() error { return p.work(ctx, dst, batch) })
	}
	return p
}

func (p *pipeline) work(ctx context.Context, dst ipfs.Putter, most int) error {
	var batch []ipfs.Block
	size := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := dst.Put(ctx, batch...); err != nil {
			return fmt.Errorf("put %d blocks: %w", len(batch), err)
		}
		batch, size = nil, 0
		return nil
	}
	var last ipfs.Block // the leaf before
	for j := range p.jobs {
		if j.sum != nil && last.Cid.Defined() && bytes.Equal(j.block.Data, last.Data) {
			copy(j.sum[:], sumOf(last.Cid)) // a hole is the same leaf again and again
			continue
		}
		if j.sum != nil {
			b, err := ipfs.NewBlock(cid.Raw, j.block.Data)
			if err != nil {
				return err
			}
			copy(j.sum[:], sumOf(b.Cid))
			last, j.block = b, b
		}
		batch = append(batch, j.block)
		if size += len(j.block.Data); size >= most || len(batch) >= batchBlocks {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func (p *pipeline) send(j job) error {
	select {
	case p.jobs <- j:
		return nil
	case <-p.done:
		return p.cause()
	}
}

// stopped returns why nothing more will be put, nil while all is well.
func (p *pipeline) stopped() error {
	select {
	case <-p.done:
		return p.cause()
	default:
		return nil
	}
}

// leaf hashes and puts a raw leaf. The digest is at sum when wait has returned.
func (p *pipeline) leaf(data []byte, sum *[sumSize]byte) error {
	return p.send(job{ipfs.Block{Data: data}, sum})
}

// leafNow hashes a leaf before it returns, and puts it: for what is needed at once.
func (p *pipeline) leafNow(data []byte, sum *[sumSize]byte) error {
	b, err := ipfs.NewBlock(cid.Raw, data)
	if err != nil {
		return err
	}
	copy(sum[:], sumOf(b.Cid))
	return p.block(b)
}

// block puts a block.
func (p *pipeline) block(b ipfs.Block) error { return p.send(job{block: b}) }

// wait returns when all was put, or with the first error.
func (p *pipeline) wait() error {
	close(p.jobs)
	return p.group.Wait()
}

type sendLeaf func(data []byte, sum *[sumSize]byte) error

// A content is a file on its way through a pipeline: the digests of its leaves. Its owner
// may say where that of the first one goes.
type content struct {
	first *[sumSize]byte
	rest  []*[sumSize]byte
	n     int // leaves
	size  int64
}

// leaf sends the next leaf to a pipeline's leaf or leafNow.
func (c *content) leaf(send sendLeaf, data []byte) error {
	sum := c.first
	if c.n > 0 || sum == nil {
		sum = new([sumSize]byte)
	}
	if c.n > 0 {
		c.rest = append(c.rest, sum)
	} else {
		c.first = sum
	}
	c.n++
	c.size += int64(len(data))
	return send(data, sum)
}

// file returns the file, when the pipeline was waited for.
func (c *content) file(out emit) (ipfs.File, error) {
	f := ipfs.File{Size: c.size}
	if len(c.rest) == 0 {
		f.Cid = ipfs.RawCid(string(c.first[:]))
		return f, nil
	}
	leaves := make([]byte, 0, c.n*sumSize)
	leaves = append(leaves, c.first[:]...)
	for _, sum := range c.rest {
		leaves = append(leaves, sum[:]...)
	}
	f.Leaves = string(leaves)
	root, err := ipfs.BuildFile(f.Size, f.Leaves, out)
	f.Cid = root
	return f, err
}

// A contentWriter cuts what is written to it into the leaves of a file.
type contentWriter struct {
	content
	send sendLeaf
	buf  []byte
}

func (w *contentWriter) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		if w.buf == nil {
			w.buf = make([]byte, 0, ipfs.LeafSize)
		}
		part := b[:min(len(b), cap(w.buf)-len(w.buf))]
		w.buf = append(w.buf, part...)
		b = b[len(part):]
		if len(w.buf) == cap(w.buf) {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (w *contentWriter) flush() error {
	data := w.buf
	w.buf = nil
	return w.leaf(w.send, data)
}

// Close sends the last leaf: an empty one for an empty file.
func (w *contentWriter) Close() error {
	if len(w.buf) > 0 || w.n == 0 {
		return w.flush()
	}
	return nil
}
