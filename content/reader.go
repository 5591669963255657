package content

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
)

// ErrWrongRoot says that the file which a manifest binds a blob to has other bytes than the blob's digest says.
var ErrWrongRoot = errors.New("the manifest binds it to the root of something else")

const (
	// maxLazy bounds the blobs whose leaves are remembered though they are elsewhere.
	maxLazy = 64
	// hashPiece is how much is read at a time to be hashed.
	hashPiece = 1 << 20
	// promoteTime bounds how long it takes to pin what was fetched.
	promoteTime = time.Minute
)

// ReaderAt implements content.Provider. Of a blob that is not here as a whole, reads fetch what they need as long as ctx lives.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (ctd.ReaderAt, error) {
	d := desc.Digest
	r, err := s.told(ctx, d)
	if err != nil {
		return nil, err
	}
	root, err := cid.Decode(r.Root)
	if err != nil {
		return nil, fmt.Errorf("content %s: %w", d, err)
	}
	if r.Unseen {
		return &lazyReader{ctx, s, s.lazyBlob(d, root, r)}, nil
	}
	f, err := s.node.Open(ipfs.File{Cid: root, Size: r.Size, Layout: ipfs.LayoutBlob})
	if errors.Is(err, ipfs.ErrNotFound) { // Kubo has it, or it was lost
		return &lazyReader{ctx, s, s.lazyBlob(d, root, r)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("content %s: %w", d, err)
	}
	return &fileReader{f, r.Size}, nil
}

// A fileReader reads a blob that is here.
type fileReader struct {
	*os.File
	size int64
}

// Size implements content.ReaderAt.
func (r *fileReader) Size() int64 { return r.size }

// A lazy blob is one that is elsewhere. Who holds turn may use what follows it.
type lazy struct {
	digest digest.Digest
	root   cid.Cid
	size   int64

	turn chan struct{}
	file ipfs.File // with its leaves, once they are known
	seen bool      // it is the blob of this digest
	bad  error     // it is not
	hash hash.Hash // of the bytes before next
	next int64
}

// lazyBlob returns a blob that is elsewhere, with what is known of it.
func (s *Store) lazyBlob(d digest.Digest, root cid.Cid, r record) *lazy {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.lazy[d]
	if b == nil || !b.root.Equals(root) {
		if len(s.lazy) >= maxLazy {
			clear(s.lazy) // what was hashed is hashed again
		}
		b = &lazy{digest: d, root: root, size: r.Size, seen: !r.Unseen, turn: make(chan struct{}, 1)}
		s.lazy[d] = b
	}
	return b
}

// lock waits for the turn of one reader.
func (b *lazy) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case b.turn <- struct{}{}:
		return func() { <-b.turn }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// A lazyReader reads a blob that is elsewhere.
type lazyReader struct {
	ctx   context.Context // of ReaderAt: io.ReaderAt has none
	store *Store
	blob  *lazy
}

// Size implements content.ReaderAt.
func (r *lazyReader) Size() int64 { return r.blob.size }

// Close implements content.ReaderAt.
func (r *lazyReader) Close() error { return nil }

// ReadAt implements content.ReaderAt.
func (r *lazyReader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.blob.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), r.blob.size-off))
	f, err := r.load()
	if err == nil {
		err = r.fetch(f, p[:n], off)
	}
	if err == nil {
		err = r.check(f, p[:n], off)
	}
	if err != nil {
		return 0, fmt.Errorf("read content %s: %w", r.blob.digest, err)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fetch reads all of p.
func (r *lazyReader) fetch(f ipfs.File, p []byte, off int64) error {
	n, err := r.store.node.ReadAt(r.ctx, f, p, off)
	if n == len(p) {
		return nil
	}
	return errors.Join(io.ErrUnexpectedEOF, err)
}

// load finds the leaves, once.
func (r *lazyReader) load() (ipfs.File, error) {
	b := r.blob
	unlock, err := b.lock(r.ctx)
	if err != nil {
		return ipfs.File{}, err
	}
	defer unlock()
	if b.bad != nil || b.file.Cid.Defined() {
		return b.file, b.bad
	}
	f, err := r.store.node.Load(r.ctx, b.root, b.size)
	switch {
	case err == nil:
		b.file = f
	case errors.Is(err, ipfs.ErrFile) && !b.seen: // of no file of this size is the root
		b.bad = err
		err = errors.Join(err, r.store.refute(b.digest, b.root))
	}
	return f, err
}

// check hashes what is read in order. Nothing of the blob's end is given out before all of it was hashed, and is right.
func (r *lazyReader) check(f ipfs.File, p []byte, off int64) error {
	b, end := r.blob, off+int64(len(p))
	unlock, err := b.lock(r.ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if b.seen || b.bad != nil {
		return b.bad
	}
	if b.hash == nil {
		b.hash, b.next = b.digest.Algorithm().Hash(), 0
	}
	if off <= b.next && end > b.next {
		b.hash.Write(p[b.next-off:]) // never fails
		b.next = end
	}
	if end < b.size {
		return nil
	}
	for buf := make([]byte, hashPiece); b.next < b.size; { // who reads the end first
		piece := buf[:min(int64(len(buf)), b.size-b.next)]
		if err := r.fetch(f, piece, b.next); err != nil {
			return err
		}
		b.hash.Write(piece)
		b.next += int64(len(piece))
	}
	return r.judge(f)
}

// judge says whether all that was hashed is the blob, and keeps it if so.
func (r *lazyReader) judge(f ipfs.File) error {
	b := r.blob
	sum := b.hash.Sum(nil)
	b.hash = nil
	if got := digest.NewDigestFromBytes(b.digest.Algorithm(), sum); got != b.digest {
		r.store.log.Error("a manifest binds a blob to something else; it is not believed any more", "digest", b.digest.String(), "root", b.root.String(), "is", got.String())
		b.bad = fmt.Errorf("%w, whose digest is %s: remove the image, and pull it from somebody else", ErrWrongRoot, got)
		return errors.Join(b.bad, r.store.refute(b.digest, b.root))
	}
	// It is known now, whoever waits for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), promoteTime)
	defer cancel()
	if err := r.store.promote(ctx, f, b.digest); err != nil {
		return err
	}
	b.seen = true
	return nil
}

// promote makes a blob one that was ingested, if it has a record.
func (s *Store) promote(ctx context.Context, f ipfs.File, d digest.Digest) error {
	defer s.lockDigest(d)()
	r, err := s.record(d)
	if err != nil || !r.Unseen {
		return err
	}
	pin := ipfs.Pin{Root: f.Cid, Name: s.pinName(d)}
	if err := s.node.KeepFetched(ctx, f, pin.Name); err != nil {
		return err
	}
	r.Root, r.Unseen = f.Cid.String(), false
	r.Public = r.Public || f.NumLeaves() == 1 // peers give its block to who knows the digest
	if err := s.setRecord(d, r); err != nil {
		s.node.Drop(pin)
		return err
	}
	return nil
}
