package layer

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
)

// Result says what Write made.
type Result struct {
	Root    ipfs.Block    // the layer root
	DiffID  digest.Digest // sha256 of the tar
	Files   int           // regular files in the index, hard links counted once
	Entries int           // entries of the index
	Bytes   int64         // length of the tar
}

// WriteOptions are what a caller of Write may set.
type WriteOptions struct {
	// Progress, if set, is called with the bytes of the tar read since the last call.
	Progress func(n int64)
	// MaxSparse bounds the bytes that the sparse files of the tar expand to; default
	// MaxSparse.
	MaxSparse int64
	// Large, if set, is called once, when the tar has more than LargeLayer entries: whoever
	// writes several layers at a time may let the others end first. Its error ends Write.
	Large func() error
	// Workers is how many goroutines hash and put, each block by itself; 0 is one for each core, and many blocks at a time.
	Workers int
	// Index, if set, is written the bytes of the layer's index file, which ReadIndex reads.
	Index io.Writer
}

// LargeLayer is how many entries make a layer one that should be written, or read as a tar,
// while no other such layer is: some 40 MB are held by then.
const LargeLayer = 256 << 10

// A writer is one call of Write.
type writer struct {
	pipe      *pipeline
	src       *source
	split     *splitWriter
	splitTo   *contentWriter
	tree      *tree
	payloads  []int32 // inodes of the payloads of the tar-split, in their order
	sparse    int64   // bytes of sparse files so far
	maxSparse int64
	large     func() error // of WriteOptions, until it was called
	indexTo   io.Writer
	workers   int
	largeAt   int
	made      made
}

// made is what a writer makes of a tar, as far as it follows from the tar alone.
type made struct {
	index            entries
	places           []int32 // of the tar-split's table
	rootfs, shadowed link    // shadowed.cid is cid.Undef when there is none
}

// Write converts a tar, read to its end, and puts all blocks of the layer to dst, the root
// last. It holds a few leaves a core, and of an entry about 120 bytes and its name. It
// pins nothing: the caller pins Result.Root. A Read of the tar that does not return is the
// caller's to end.
func Write(ctx context.Context, dst ipfs.Putter, tarball io.Reader, opts WriteOptions) (*Result, error) {
	return newWriter(tarball, opts).write(ctx, dst)
}

func newWriter(tarball io.Reader, opts WriteOptions) *writer {
	if opts.MaxSparse <= 0 {
		opts.MaxSparse = MaxSparse
	}
	return &writer{src: newSource(tarball, opts.Progress), tree: newTree(), maxSparse: opts.MaxSparse, large: opts.Large, largeAt: LargeLayer, indexTo: opts.Index, workers: opts.Workers}
}

func (w *writer) write(ctx context.Context, dst ipfs.Putter) (*Result, error) {
	w.pipe = newPipeline(ctx, dst, w.workers)
	err := w.read()
	if werr := w.pipe.wait(); werr != nil {
		err = werr // what the reader saw is that the pipeline had stopped
	}
	if err != nil {
		return nil, fmt.Errorf("convert layer: %w", err)
	}
	w.pipe = newPipeline(ctx, dst, w.workers)
	root, files, err := w.finish(ctx)
	if werr := w.pipe.wait(); werr != nil {
		err = werr
	}
	if err == nil {
		err = dst.Put(ctx, root)
	}
	if err != nil {
		return nil, fmt.Errorf("convert layer: %w", err)
	}
	return &Result{
		Root:    root,
		DiffID:  digest.NewDigest(digest.SHA256, w.src.hash),
		Files:   files,
		Entries: w.tree.count(),
		Bytes:   w.src.bytes,
	}, nil
}

// read reads the tar: contents go to the pipeline, the rest to the tree and the tar-split.
func (w *writer) read() error {
	w.splitTo = &contentWriter{send: w.pipe.leaf}
	var err error
	if w.split, err = newSplitWriter(w.splitTo); err != nil {
		return err
	}
	w.src.record = w.split
	tr := tar.NewReader(w.src)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return w.src.error("read tar", err)
		}
		if err := w.entry(tr, hdr); err != nil {
			return fmt.Errorf("entry %.256q: %w", hdr.Name, err)
		}
	}
	// What follows the end of the archive belongs to the tar.
	if _, err := io.Copy(io.Discard, w.src); err != nil {
		return w.src.error("read tar", err)
	}
	if err := w.tree.setDirTimes(); err != nil {
		return err
	}
	w.tree.number()
	w.made.index, w.made.places = w.tree, make([]int32, len(w.payloads))
	for i, n := range w.payloads {
		w.made.places[i] = w.tree.inodes.at(n).number
	}
	if err := w.split.close(w.made.places); err != nil {
		return err
	}
	return w.splitTo.Close()
}

// entry applies one entry and reads its content.
func (w *writer) entry(tr *tar.Reader, hdr *tar.Header) error {
	if err := w.pipe.stopped(); err != nil {
		return err
	}
	i, err := w.tree.apply(hdr)
	if err == nil && w.large != nil && w.tree.entries > w.largeAt {
		err, w.large = w.large(), nil
	}
	if err != nil || i == noFile {
		return err // the next call of Next skips the content, and records it
	}
	n := w.tree.inodes.at(i)
	c := content{first: &n.sum}
	if isSparse(hdr) {
		// A few bytes can claim a file of any size.
		if w.sparse += hdr.Size; w.sparse > w.maxSparse {
			return fmt.Errorf("%w (%d bytes of sparse files)", ErrTooLarge, w.maxSparse)
		}
	} else if hdr.Size > 0 {
		if err := w.split.payload(hdr.Size); err != nil {
			return err
		}
		w.payloads = append(w.payloads, i)
		w.src.recording = false
		defer func() { w.src.recording = true }()
	}
	for left := hdr.Size; left > 0 || c.n == 0; {
		leaf := make([]byte, min(left, ipfs.LeafSize))
		if _, err := io.ReadFull(tr, leaf); err != nil {
			return w.src.error("read content", err)
		}
		if err := c.leaf(w.pipe.leaf, leaf); err != nil {
			return err
		}
		left -= int64(len(leaf))
	}
	if len(c.rest) > 0 {
		w.tree.extra(n).rest = c.rest
	}
	// The reader tells that a sparse file has more bytes than its map says where it ends,
	// and nothing was read of an empty one.
	if _, err := tr.Read(make([]byte, 1)); err != io.EOF {
		return w.src.error("read content", err)
	}
	return nil
}

// isSparse says whether the bytes in the tar may be others than those of the file. Such
// entries are recorded as they are.
func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range hdr.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// finish fills in the digests, and builds all that is above the leaves.
func (w *writer) finish(ctx context.Context) (root ipfs.Block, files int, err error) {
	if files, err = w.tree.settle(); err != nil {
		return root, 0, err
	}
	links, err := w.parts(ctx)
	if err != nil {
		return root, 0, err
	}
	root, err = ipfs.NewBlock(cid.DagProtobuf, directoryNode(links))
	return root, files, err
}

// parts builds what the layer root links to.
func (w *writer) parts(ctx context.Context) ([]link, error) {
	rootfs, err := buildRootfs(ctx, w.tree, w.pipe.block)
	if err != nil {
		return nil, fmt.Errorf("build rootfs: %w", err)
	}
	rootfs.name = linkRootfs
	split, err := fileLink(linkTarSplit, &w.splitTo.content, w.pipe.block)
	if err != nil {
		return nil, fmt.Errorf("build tar-split: %w", err)
	}
	index, err := w.index()
	if err != nil {
		return nil, err
	}
	shadowed, err := w.shadowed(ctx)
	if err != nil {
		return nil, err
	}
	w.made.rootfs, w.made.shadowed = rootfs, shadowed
	links := []link{index, rootfs}
	if shadowed.cid.Defined() {
		links = append(links, shadowed)
	}
	return append(links, split), nil
}

// index writes the index.
func (w *writer) index() (link, error) {
	pipe := &contentWriter{send: w.pipe.leafNow}
	to := io.Writer(pipe)
	if w.indexTo != nil {
		to = io.MultiWriter(pipe, w.indexTo)
	}
	zip, err := newCompressor(to)
	if err != nil {
		return link{}, err
	}
	raw, err := encodeIndex(zip, w.tree)
	if err != nil {
		return link{}, err
	}
	if err := zip.Close(); err != nil {
		return link{}, err
	}
	if err := pipe.Close(); err != nil {
		return link{}, err
	}
	// No reader would take it.
	if size := pipe.content.size; size > MaxIndexFile || raw > indexLimit(size) {
		return link{}, fmt.Errorf("index of %d bytes, %d compressed: %w", raw, size, ErrTooLarge)
	}
	return fileLink(linkIndex, &pipe.content, w.pipe.block)
}

// shadowed builds the directory of the contents that a later entry took the place of.
func (w *writer) shadowed(ctx context.Context) (link, error) {
	var links []link
	for i, place := range w.made.places {
		if place >= 0 {
			continue
		}
		c := w.tree.content(w.tree.inodes.at(w.payloads[i]))
		l, err := fileLink(strconv.Itoa(len(links)), c, w.pipe.block)
		if err != nil {
			return link{}, err
		}
		links = append(links, l)
	}
	if len(links) == 0 {
		return link{}, nil
	}
	sortLinks(links)
	dir, err := buildDirectory(ctx, links, w.pipe.block)
	dir.name = linkShadowed
	return dir, err
}

// fileLink builds the nodes of a file and returns a link to it.
func fileLink(name string, c *content, out emit) (link, error) {
	f, err := c.file(out)
	if err != nil {
		return link{}, err
	}
	size, err := f.DagSize()
	return link{name, f.Cid, size}, err
}

// A source is the tar as it is read: it hashes and counts all bytes, and records those
// that are not the content of a file.
type source struct {
	buf       *bufio.Reader
	hash      hash.Hash
	bytes     int64
	record    io.Writer
	recording bool
	err       error // of the stream, as opposed to what the tar reader makes of it
}

// readBuffer is how much of a tar is read and hashed at a time.
const readBuffer = 256 << 10

func newSource(r io.Reader, progress func(int64)) *source {
	s := &source{hash: sha256.New(), recording: true}
	s.buf = bufio.NewReaderSize(readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		s.hash.Write(p[:n])
		s.bytes += int64(n)
		if progress != nil && n > 0 {
			progress(int64(n))
		}
		if err != nil && err != io.EOF {
			s.err = err
		}
		return n, err
	}), readBuffer)
	return s
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.buf.Read(p)
	if s.recording && n > 0 {
		if _, err := s.record.Write(p[:n]); err != nil {
			s.err = err
			return n, err
		}
	}
	return n, err
}

// error tells a tar that is wrong from a stream that failed.
func (s *source) error(doing string, err error) error {
	if s.err != nil {
		return fmt.Errorf("%s after %d bytes: %w", doing, s.bytes, s.err)
	}
	return fmt.Errorf("%s after %d bytes: %w: %w", doing, s.bytes, ErrTar, err)
}
