package layer

import (
	"context"
	"fmt"
	"io"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
)

// loadFile walks the nodes of a file of at most limit bytes and returns the file, proven
// to be what c names. Leaves are not fetched, but for a file that is one leaf.
func loadFile(ctx context.Context, src Source, c cid.Cid, limit int64) (ipfs.File, error) {
	data, err := getVerified(ctx, src, c)
	if err != nil {
		return ipfs.File{}, err
	}
	f := ipfs.File{Cid: c, Size: int64(len(data))}
	if c.Type() == cid.Raw {
		if f.Size > min(limit, ipfs.LeafSize) {
			return f, fmt.Errorf("file %s of %d bytes: %w", c, f.Size, ErrTooLarge)
		}
		return f, nil
	}
	if f.Size, err = ipfs.FileSize(ipfs.Block{Cid: c, Data: data}); err != nil {
		return f, err
	}
	if f.Size > MaxFile {
		return f, fmt.Errorf("file %s: %w: its root claims no size below %d", c, ipfs.ErrFile, int64(MaxFile))
	}
	if f.Size > limit {
		return f, fmt.Errorf("file %s: %w (%d bytes)", c, ErrTooLarge, limit)
	}
	return ipfs.LoadFile(ctx, src, c, f.Size, ipfs.LayoutFile)
}

// getVerified gets a block, and checks it although a Source has done so: what follows
// believes that it is what its CID says.
func getVerified(ctx context.Context, src ipfs.Getter, c cid.Cid) ([]byte, error) {
	data, err := src.Get(ctx, c)
	if err != nil {
		return nil, err
	}
	return data, ipfs.Verify(c, data)
}

// readWindow is how many leaves of one file are asked for at a time.
const readWindow = 16

// openFile returns a reader of a file that fetches readWindow leaves at a time. It may be
// used as long as ctx.
func openFile(ctx context.Context, src ipfs.Fetcher, f ipfs.File) io.Reader {
	var window [][]byte
	next := 0
	return readerFunc(func(p []byte) (int, error) {
		for len(window) == 0 || len(window[0]) == 0 {
			if len(window) > 0 {
				window = window[1:]
				continue
			}
			if next == f.NumLeaves() {
				return 0, io.EOF
			}
			n := min(readWindow, f.NumLeaves()-next)
			got, err := fetchLeaves(ctx, src, f, next, n)
			if err != nil {
				return 0, err
			}
			window, next = got, next+n
		}
		n := copy(p, window[0])
		window[0] = window[0][n:]
		return n, nil
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// fetchLeaves fetches n leaves of a file from leaf first on, in order. Like getVerified,
// it hashes them once more: an index or a tar-split is made of them.
func fetchLeaves(ctx context.Context, src ipfs.Fetcher, f ipfs.File, first, n int) ([][]byte, error) {
	want := make(map[cid.Cid][]byte, n)
	cids := make([]cid.Cid, 0, n)
	for i := first; i < first+n; i++ {
		c := f.Leaf(i)
		if _, ok := want[c]; !ok {
			want[c] = nil
			cids = append(cids, c)
		}
	}
	err := src.Fetch(ctx, cids, func(b ipfs.Block) error {
		if _, ok := want[b.Cid]; ok {
			want[b.Cid] = b.Data
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := make([][]byte, n)
	for i := range out {
		c := f.Leaf(first + i)
		out[i] = want[c]
		if err := ipfs.Verify(c, out[i]); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Cid, err)
		}
		if len(out[i]) != f.LeafLen(first+i) {
			return nil, fmt.Errorf("file %s: %w: leaf %d has %d bytes", f.Cid, ipfs.ErrFile, first+i, len(out[i]))
		}
	}
	return out, nil
}
