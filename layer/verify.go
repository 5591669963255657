package layer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/opencontainers/go-digest"
)

// A Proof says what Verify found.
type Proof struct {
	DiffID digest.Digest // sha256 of the tar that the layer gives back
	Bytes  int64         // length of that tar
	Files  int           // regular files in the index, hard links counted once
}

// Verify reads every byte of the layer, and proves that its parts say the same. The tar is
// rebuilt, and made a layer of again: its index, its rootfs, the places of its payloads
// and its shadowed files must be those of this layer. What it returns is about the tar;
// whether that is the right one, the caller knows. Errors are ErrViews, or those of
// reading, or where the tar is none that becomes a layer, those of Write: no index can be
// that of such a tar. Besides what Write needs, it holds the index. progress,
// which may be nil, is called with the bytes of the tar read since the last call.
func (t *Tar) Verify(ctx context.Context, progress func(n int64)) (*Proof, error) {
	proof, err := t.verify(ctx, progress)
	if err != nil {
		return nil, fmt.Errorf("verify layer %s: %w", t.layer.Root.Cid, err)
	}
	return proof, nil
}

func (t *Tar) verify(ctx context.Context, progress func(n int64)) (*Proof, error) {
	l := t.layer
	if err := t.verifyRoot(ctx); err != nil {
		return nil, err
	}
	w, result, err := t.remake(ctx, progress)
	if err != nil {
		return nil, err
	}
	if err := compareIndexes(t.index, w.made.index); err != nil {
		return nil, err
	}
	if !slices.Equal(t.places, w.made.places) {
		return nil, fmt.Errorf("%w: the table of the tar-split is not what its tar makes", ErrViews)
	}
	if !l.Shadowed.Equals(w.made.shadowed.cid) {
		return nil, fmt.Errorf("%w: shadowed is %s, its tar makes %s", ErrViews, l.Shadowed, w.made.shadowed.cid)
	}
	if err := t.readRest(ctx); err != nil {
		return nil, err
	}
	return &Proof{DiffID: result.DiffID, Bytes: result.Bytes, Files: result.Files}, nil
}

// remake makes a layer of the tar that nobody keeps. It returns when nothing is left running.
func (t *Tar) remake(ctx context.Context, progress func(n int64)) (*writer, *Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, pipe := io.Pipe()
	rebuilt := make(chan struct{})
	go func() {
		defer close(rebuilt)
		if err := t.write(ctx, pipe); err != nil {
			pipe.CloseWithError(&rebuildError{err})
			return
		}
		pipe.Close()
	}()
	w := newWriter(r, WriteOptions{Progress: progress})
	result, err := w.write(ctx, nowhere{})
	// Where the tar is no good, its next block may be one that takes long to get.
	r.CloseWithError(errStopped)
	cancel()
	<-rebuilt
	if broken := (*rebuildError)(nil); errors.As(err, &broken) {
		err = broken.err // and not what the writer made of a tar that broke off
	}
	return w, result, err
}

// A rebuildError tells an error of the tar's way out of the layer from those of its way back.
type rebuildError struct{ err error }

func (e *rebuildError) Error() string { return e.err.Error() }

func (e *rebuildError) Unwrap() error { return e.err }

var errStopped = errors.New("nobody reads on")

// nowhere takes blocks and forgets them.
type nowhere struct{}

func (nowhere) Put(context.Context, ...ipfs.Block) error { return nil }

// compareIndexes says where the index of a layer and that of its tar differ first.
func compareIndexes(have, made entries) error {
	err := made.each(func(i, depth int, b *Entry) error {
		if i >= have.count() {
			return nil // the counts say so
		}
		if a, d := have.at(i); d != depth || !equalEntries(&a, b) {
			return fmt.Errorf("%w: entry %d of the index, %.256q, is not what its tar makes there (%.256q)",
				ErrViews, i, pathOf(have, i), pathOf(made, i))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if a, b := have.count(), made.count(); a != b {
		return fmt.Errorf("%w: the index has %d entries, its tar makes %d", ErrViews, a, b)
	}
	return nil
}

// equalEntries compares entries of the same depth.
func equalEntries(a, b *Entry) bool {
	x, y := *a, *b
	x.Extra, y.Extra = nil, nil
	x.Parent, y.Parent = 0, 0
	var none Extra
	p, q := &none, &none
	if a.Extra != nil {
		p = a.Extra
	}
	if b.Extra != nil {
		q = b.Extra
	}
	return x == y && p.Leaves == q.Leaves && p.Major == q.Major && p.Minor == q.Minor && slices.Equal(p.Xattrs, q.Xattrs)
}

// verifyRoot builds rootfs from the index, reading each of its blocks, and the root block
// from its parts.
func (t *Tar) verifyRoot(ctx context.Context) (err error) {
	l, src := t.layer, t.src
	read := &window{src: src, w: io.Discard, verify: true}
	defer func() { err = errors.Join(err, read.wait()) }()
	rootfs, err := buildRootfs(ctx, t.index, func(b ipfs.Block) error { return read.leaf(ctx, b.Cid, len(b.Data)) })
	if err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	if !rootfs.cid.Equals(l.Rootfs) {
		return fmt.Errorf("%w: rootfs is %s, its index makes %s", ErrViews, l.Rootfs, rootfs.cid)
	}
	if err := read.flush(ctx); err != nil {
		return fmt.Errorf("rootfs: %w", err)
	}
	links, _, err := parseNode(string(l.Root.Data))
	if err != nil {
		return err
	}
	for _, k := range links {
		var size uint64
		switch k.name {
		case linkRootfs:
			size = rootfs.tsize
		case linkShadowed:
			size, err = directorySize(ctx, src, k)
		default:
			size, err = fileDagSize(ctx, src, k)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if k.tsize != size {
			return fmt.Errorf("%w: the root gives %d bytes as the size of %s, which has %d", ErrViews, k.tsize, k.name, size)
		}
	}
	return nil
}

func fileDagSize(ctx context.Context, src Source, k link) (uint64, error) {
	f, err := loadFile(ctx, src, k.cid, MaxFile)
	if err != nil {
		return 0, err
	}
	return f.DagSize()
}

// directorySize is the size of shadowed, as its root block gives it: what is below is
// compared as a whole.
func directorySize(ctx context.Context, src Source, k link) (uint64, error) {
	data, err := getVerified(ctx, src, k.cid)
	if err != nil {
		return 0, err
	}
	links, _, err := parseNode(string(data))
	if err != nil {
		return 0, err
	}
	size := uint64(len(data))
	for _, l := range links {
		size += l.tsize
	}
	return size, nil
}

// readRest reads the files that no payload of the tar-split is: those that are sparse in
// the tar, and empty ones. Their digests were compared; that they are there was not.
func (t *Tar) readRest(ctx context.Context) (err error) {
	isPayload := make([]bool, t.index.count())
	for _, p := range t.places {
		if p >= 0 {
			isPayload[p] = true
		}
	}
	read := &window{src: t.src, w: io.Discard, verify: true}
	defer func() { err = errors.Join(err, read.wait()) }()
	for i := range isPayload {
		f, ok := fileAt(t.index, i)
		if isPayload[i] || !ok {
			continue
		}
		for k := range f.NumLeaves() {
			if err := read.leaf(ctx, f.Leaf(k), f.LeafLen(k)); err != nil {
				return fmt.Errorf("file %.256q: %w", pathOf(t.index, i), err)
			}
		}
	}
	return read.flush(ctx)
}
