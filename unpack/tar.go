//go:build linux

package unpack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/layer"
)

// errDone ends the writer of a pipe whose reader needs no more.
var errDone = errors.New("the reader has ended")

// piped runs write and read at the two ends of a pipe. It returns when both have: a write
// that goes on when read has returned fails, and its context ends. The error is that of
// read, which sees the one of write.
func piped(ctx context.Context, write func(context.Context, io.Writer) error, read func(context.Context, io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(write(ctx, w))
	}()
	err := read(ctx, r)
	r.CloseWithError(cmp.Or(err, errDone))
	cancel()
	<-written
	return err
}

// applyTar rebuilds the tar of a layer and applies it with containerd's code. It returns the
// digest and the length of the tar.
func (d *Differ) applyTar(ctx context.Context, l *layer.Layer, to target, syncFs bool) (digest.Digest, int64, error) {
	var opts []archive.ApplyOpt
	if to.overlay {
		opts = append(opts, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
		if len(to.lower) > 0 {
			opts = append(opts, archive.WithParents(to.lower))
		}
	}
	digester := digest.Canonical.Digester()
	var size counter
	err := piped(ctx, func(ctx context.Context, w io.Writer) error {
		return l.WriteTar(ctx, d.node, w)
	}, func(ctx context.Context, r io.Reader) error {
		r = io.TeeReader(r, io.MultiWriter(digester.Hash(), &size))
		if _, err := archive.Apply(ctx, to.dir, r, opts...); err != nil {
			return err
		}
		// What follows the end of the archive belongs to the tar.
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if err == nil && syncFs {
		err = syncDir(to.dir)
	}
	return digester.Digest(), int64(size), err
}

// A counter counts what is written to it.
type counter int64

func (c *counter) Write(b []byte) (int, error) {
	*c += counter(len(b))
	return len(b), nil
}

// syncDir writes the file system of a directory to disk.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
