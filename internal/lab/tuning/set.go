package tuning

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
)

// smallFile is the size of files that are small.
const smallFile = 64 << 10

// A set is what is moved: an image, as convert makes it.
type set struct {
	blocks []ipfs.Block // all, in the order in which convert puts them
	files  []ipfs.File  // all different ones
}

// A recorder is a node in memory that knows the order of what was put.
type recorder struct {
	*ipfstest.Memory
	mu     sync.Mutex
	seen   map[cid.Cid]bool
	blocks []ipfs.Block
}

func (r *recorder) Put(ctx context.Context, blocks ...ipfs.Block) error {
	r.mu.Lock()
	for _, b := range blocks {
		if !r.seen[b.Cid] {
			r.seen[b.Cid] = true
			r.blocks = append(r.blocks, b)
		}
	}
	r.mu.Unlock()
	return r.Memory.Put(ctx, blocks...)
}

// load makes the blocks of the image.
func load(ctx context.Context, opts Options) (*set, error) {
	dir, err := images.Ensure(ctx, opts.Images, "debian", opts.Log)
	if err != nil {
		return nil, err
	}
	image, err := images.Open(dir)
	if err != nil {
		return nil, err
	}
	r := &recorder{Memory: ipfstest.NewMemory(), seen: make(map[cid.Cid]bool)}
	out := &set{}
	known := make(map[cid.Cid]bool)
	err = image.Tars(func(tar io.Reader) error {
		made, err := layer.Write(ctx, r, tar, layer.WriteOptions{})
		if err != nil {
			return err
		}
		l, err := layer.OpenBlock(ctx, r, made.Root)
		if err != nil {
			return err
		}
		for i := range l.Index.Entries {
			e := &l.Index.Entries[i]
			if e.Digest == "" || e.Size == 0 {
				continue
			}
			if f := e.File(); !known[f.Cid] {
				known[f.Cid] = true
				out.files = append(out.files, f)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.blocks = r.blocks
	opts.Log("the set: %s", out)
	return out, nil
}

// String says how much it is.
func (s *set) String() string {
	bytes := 0
	for _, b := range s.blocks {
		bytes += len(b.Data)
	}
	return fmt.Sprintf("%d files, %d blocks, %d MB", len(s.files), len(s.blocks), bytes/1e6)
}

// pick returns the files that are wanted.
func (s *set) pick(want func(ipfs.File) bool) []ipfs.File {
	var files []ipfs.File
	for _, f := range s.files {
		if want(f) {
			files = append(files, f)
		}
	}
	return files
}

// large are files of several leaves, small those of a few kilobytes.
func (s *set) large() []ipfs.File {
	return s.pick(func(f ipfs.File) bool { return f.NumLeaves() > 1 })
}

func (s *set) small() []ipfs.File {
	return s.pick(func(f ipfs.File) bool { return f.Size <= smallFile })
}

// share returns every nth file.
func share(files []ipfs.File, n int) []ipfs.File {
	var some []ipfs.File
	for i := 0; i < len(files); i += n {
		some = append(some, files[i])
	}
	return some
}

// leaves lists the different leaves of files.
func leaves(files []ipfs.File) []cid.Cid {
	seen := make(map[cid.Cid]bool)
	var list []cid.Cid
	for _, f := range files {
		for i := range f.NumLeaves() {
			if c := f.Leaf(i); !seen[c] {
				seen[c] = true
				list = append(list, c)
			}
		}
	}
	return list
}

// said says how much files are.
func said(files []ipfs.File) string {
	var bytes int64
	for _, f := range files {
		bytes += f.Size
	}
	return fmt.Sprintf("%d files, %d MB", len(files), bytes/1e6)
}
