package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
)

// ErrWrongRoot says that the file which a manifest binds a blob to has other bytes than the blob's digest says.
var ErrWrongRoot = errors.New("the manifest binds it to the root of something else")

// ReaderAt implements content.Provider. Of a blob that is not here as a whole, reads fetch what they need as long as ctx lives.
func (s *Store) ReaderAt(ctx context.Context, desc ocispec.Descriptor) (ctd.ReaderAt, error) {
	d := desc.Digest
	r, err := s.record(d)
	if b := s.boundTo(d); b != nil && errdefs.IsNotFound(err) {
		return &lazyReader{ctx: ctx, store: s, blob: b, check: true}, nil
	}
	if err != nil {
		return nil, err
	}
	root, err := cid.Decode(r.Root)
	if err != nil {
		return nil, fmt.Errorf("content %s: %w", d, err)
	}
	f, err := s.node.Open(ipfs.File{Cid: root, Size: r.Size, Layout: ipfs.LayoutBlob})
	if errors.Is(err, ipfs.ErrNotFound) {
		return &lazyReader{ctx: ctx, store: s, blob: s.absent(d, root, r.Size)}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("content %s: %w", d, err)
	}
	return &fileReader{f, r.Size}, nil
}

// maxAbsent bounds the blobs whose leaves are remembered though they are elsewhere.
const maxAbsent = 64

// absent returns a blob that was ingested and is not here: Kubo has it, or it was lost.
func (s *Store) absent(d digest.Digest, root cid.Cid, size int64) *bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.away[d]
	if b == nil {
		if len(s.away) >= maxAbsent {
			clear(s.away)
		}
		b = &bound{digest: d, root: root, size: size}
		s.away[d] = b
	}
	return b
}

// A fileReader reads a blob that is here.
type fileReader struct {
	*os.File
	size int64
}

// Size implements content.ReaderAt.
func (r *fileReader) Size() int64 { return r.size }

// A lazyReader reads a blob that is elsewhere.
type lazyReader struct {
	ctx   context.Context // of ReaderAt: io.ReaderAt has none
	store *Store
	blob  *bound
	check bool // nobody has seen that it is what the manifest says
}

// Size implements content.ReaderAt.
func (r *lazyReader) Size() int64 { return r.blob.size }

// Close implements content.ReaderAt.
func (r *lazyReader) Close() error { return nil }

// ReadAt implements content.ReaderAt.
func (r *lazyReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := r.readAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read content %s: %w", r.blob.digest, err)
	}
	return n, err
}

func (r *lazyReader) readAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= r.blob.size {
		return 0, io.EOF
	}
	f, err := r.load()
	if err != nil {
		return 0, err
	}
	n, err := r.store.node.ReadAt(r.ctx, f, p[:min(int64(len(p)), r.blob.size-off)], off)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	if r.check {
		if err := r.checked(f, p[:n], off); err != nil {
			return 0, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// load finds the leaves, once.
func (r *lazyReader) load() (ipfs.File, error) {
	b := r.blob
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.file.Cid.Defined() {
		return b.file, nil
	}
	f, err := r.store.node.Load(r.ctx, b.root, b.size)
	if err == nil {
		b.file = f
	}
	return f, err
}

// checked hashes what is read in order. With the last byte it is known whether this is the blob, and nothing of the last is given out if not.
func (r *lazyReader) checked(f ipfs.File, p []byte, off int64) error {
	b := r.blob
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad != nil || off > b.next || off+int64(len(p)) <= b.next {
		return b.bad
	}
	if b.hash == nil {
		b.hash = b.digest.Algorithm().Hash()
	}
	b.hash.Write(p[b.next-off:]) // never fails
	if b.next = off + int64(len(p)); b.next < b.size {
		return nil
	}
	// It is known now, whoever waits for it.
	ctx := context.WithoutCancel(r.ctx)
	if got := digest.NewDigestFromBytes(b.digest.Algorithm(), b.hash.Sum(nil)); got != b.digest {
		r.store.log.Error("a manifest binds a blob to something else; it is not believed any more", "digest", b.digest.String(), "root", b.root.String(), "is", got.String())
		b.bad = fmt.Errorf("%w, whose digest is %s: remove the image, and pull it from somebody else", ErrWrongRoot, got)
		return errors.Join(b.bad, r.store.refute(b))
	}
	err := r.store.promote(ctx, f, b)
	if err != nil {
		b.hash, b.next = nil, 0 // it is found out again by who reads it next
	}
	return err
}

// promote makes a bound blob one that was ingested.
func (s *Store) promote(ctx context.Context, f ipfs.File, b *bound) error {
	defer s.lockDigest(b.digest)()
	if _, err := s.record(b.digest); !errdefs.IsNotFound(err) {
		return err
	}
	if err := s.node.KeepFetched(ctx, f, pinPrefix+b.digest.String()); err != nil {
		return err
	}
	if err := s.setRecord(b.digest, record{Root: f.Cid.String(), Size: f.Size, Created: b.since, Updated: time.Now()}); err != nil {
		return err
	}
	s.forget(b.digest)
	return nil
}
