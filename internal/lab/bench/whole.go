package bench

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// whole counts what readWhole read.
type whole struct {
	Files int
	Bytes int64
}

// readWhole reads every regular file below root to its end: one goroutine walks, and as
// many as there are readers read what it finds, in the order of the walk. It returns
// when all have ended; when ctx ends, each finishes the file that it reads, or fails when
// the view of the host is aborted. An image may hold what opens and never ends, such as a
// pipe, so that nothing else is opened.
func readWhole(ctx context.Context, root string, readers int) (whole, error) {
	paths := make(chan string, readers)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(paths)
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			select {
			case paths <- path:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	})
	counts := make([]whole, readers)
	for i := range counts {
		g.Go(func() error {
			buf := make([]byte, 1<<20)
			for path := range paths {
				n, err := readFile(path, buf)
				if err != nil {
					return err
				}
				counts[i].Files++
				counts[i].Bytes += n
			}
			return nil
		})
	}
	var all whole
	if err := g.Wait(); err != nil {
		return all, fmt.Errorf("read all files of %s: %w", root, err)
	}
	for _, c := range counts {
		all.Files += c.Files
		all.Bytes += c.Bytes
	}
	return all, nil
}

// readFile reads a file through buf and returns its size.
func readFile(path string, buf []byte) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// Without the wrapping, the file would be asked to copy itself, past buf.
	return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, buf)
}
