//go:build linux

package unpack

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

const (
	// A batch of small files is fetched in one request: so many of them, or so many bytes.
	batchFiles = 256
	batchBytes = 16 << 20
	// leavesAhead is how many leaves of a large file are asked for at a time.
	leavesAhead = 16
)

// A job is files for one worker: one of more than one leaf, or a batch of small ones.
type job struct {
	files []int32
	bytes int64 // of a batch
}

// A batch gathers small files in the order of the index, which keeps those of a directory
// together.
type batch struct {
	jobs chan<- job
	next job
}

func (b *batch) add(ctx context.Context, i int32, e *layer.Entry) error {
	if e.Leaves() != "" {
		return b.send(ctx, job{files: []int32{i}})
	}
	b.next.files = append(b.next.files, i)
	if b.next.bytes += e.Size; b.next.bytes < batchBytes && len(b.next.files) < batchFiles {
		return nil
	}
	return b.flush(ctx)
}

func (b *batch) flush(ctx context.Context) error {
	if len(b.next.files) == 0 {
		return nil
	}
	next := b.next
	b.next = job{}
	return b.send(ctx, next)
}

func (b *batch) send(ctx context.Context, j job) error {
	select {
	case b.jobs <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// work writes files until there are no more.
func (x *extraction) work(ctx context.Context, jobs <-chan job) error {
	dirs := newDirs(x)
	defer dirs.close()
	for j := range jobs {
		var err error
		if first := j.files[0]; x.index.Entries[first].Leaves() != "" {
			err = x.writeLarge(ctx, dirs, first)
		} else {
			err = x.writeBatch(ctx, dirs, j)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// writeBatch fetches the contents of small files and writes each when it comes.
func (x *extraction) writeBatch(ctx context.Context, dirs *dirs, j job) error {
	want := make(map[cid.Cid][]int32, len(j.files))
	cids := make([]cid.Cid, 0, len(j.files))
	for _, i := range j.files {
		c := x.index.Entries[i].File().Cid
		if _, ok := want[c]; !ok {
			cids = append(cids, c)
		}
		want[c] = append(want[c], i)
	}
	if err := x.held.Acquire(ctx, j.bytes); err != nil {
		return err
	}
	defer x.held.Release(j.bytes)
	return x.fetch(ctx, cids, func(b ipfs.Block) error {
		for _, i := range want[b.Cid] {
			f := x.index.Entries[i].File()
			err := x.writeFile(dirs, i, func(fd int) error { return x.writeLeaf(fd, f, 0, b.Data) })
			if err != nil {
				return x.at(i, err)
			}
		}
		return nil
	})
}

// writeLarge writes a file of several leaves.
func (x *extraction) writeLarge(ctx context.Context, dirs *dirs, i int32) error {
	f := x.index.Entries[i].File()
	err := x.writeFile(dirs, i, func(fd int) error {
		for first := 0; first < f.NumLeaves(); first += leavesAhead {
			if err := x.writeLeaves(ctx, fd, f, first, min(leavesAhead, f.NumLeaves()-first)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return x.at(i, err)
	}
	return nil
}

// writeLeaves fetches n leaves of a file and writes them in their order. Those that come
// early are held.
func (x *extraction) writeLeaves(ctx context.Context, fd int, f ipfs.File, first, n int) error {
	size := int64(n) * ipfs.LeafSize
	if err := x.held.Acquire(ctx, size); err != nil {
		return err
	}
	defer x.held.Release(size)
	got := make(map[cid.Cid][]byte, n)
	cids := make([]cid.Cid, 0, n)
	for i := first; i < first+n; i++ {
		c := f.Leaf(i)
		if _, ok := got[c]; !ok {
			got[c] = nil
			cids = append(cids, c)
		}
	}
	next := first
	return x.fetch(ctx, cids, func(b ipfs.Block) error {
		got[b.Cid] = b.Data
		for ; next < first+n && got[f.Leaf(next)] != nil; next++ {
			if err := x.writeLeaf(fd, f, next, got[f.Leaf(next)]); err != nil {
				return err
			}
		}
		return nil
	})
}

// fetch calls fn with each of the blocks, which a Source has verified, exactly once.
func (x *extraction) fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	missing := make(map[cid.Cid]struct{}, len(cids))
	for _, c := range cids {
		missing[c] = struct{}{}
	}
	err := x.source.Fetch(ctx, cids, func(b ipfs.Block) error {
		if _, ok := missing[b.Cid]; !ok {
			return nil
		}
		delete(missing, b.Cid)
		return fn(b)
	})
	if err != nil {
		return err
	}
	for c := range missing {
		return fmt.Errorf("block %s: %w: the node said nothing of it", c, ipfs.ErrNotFound)
	}
	return nil
}

// writeFile makes the file of an entry, has it filled, and gives it all that the index says
// of it: capabilities last, since writing drops them.
func (x *extraction) writeFile(dirs *dirs, i int32, fill func(fd int) error) error {
	e := &x.index.Entries[i]
	dir, err := dirs.open(e.Parent)
	if err != nil {
		return err
	}
	var fd int
	err = x.place(dir, i, func() error {
		var err error
		fd, err = openAt(dir, e.Name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, ownerOnly)
		return err
	})
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	if err = fill(fd); err == nil {
		err = x.describe(fd, e)
	}
	if cerr := unix.Close(fd); err == nil && cerr != nil {
		err = fmt.Errorf("close: %w", cerr)
	}
	return err
}

// writeLeaf writes leaf i of a file, after checking its length: the hash of a file's only
// leaf proves nothing of the size that the index claims.
func (x *extraction) writeLeaf(fd int, f ipfs.File, i int, data []byte) error {
	if len(data) != f.LeafLen(i) {
		return fmt.Errorf("leaf %d of file %s: %w: it has %d bytes, the index says %d", i, f.Cid, ipfs.ErrFile, len(data), f.LeafLen(i))
	}
	for rest := data; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		rest = rest[n:]
	}
	x.progress.add(int64(len(data)))
	return nil
}
