package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/ipfs"
)

// beside is how much is written at once that is worth hashing on another processor.
const beside = 64 << 10

var (
	errClosed  = fmt.Errorf("the writer is closed: %w", errdefs.ErrFailedPrecondition)
	errAborted = fmt.Errorf("the ingest was aborted: %w", errdefs.ErrAborted)
)

// A writer writes an ingest.
type writer struct {
	store *Store
	dir   string

	mu     sync.Mutex // guards what follows
	state  state
	file   *os.File // nil: closed
	offset int64
	blob   digest.Digester
	chunks *chunks
	broken error // the hashes are not those of the file
}

// open begins the ingest, or goes on with it. It is called with mu.
func (w *writer) open() error {
	st, err := readState(w.dir)
	if errdefs.IsNotFound(err) {
		return w.begin()
	}
	if err != nil {
		return err
	}
	if w.state.Total > 0 && st.Total > 0 && w.state.Total != st.Total {
		return w.begin() // it is of something else
	}
	w.state = state{Ref: st.Ref, Total: max(st.Total, w.state.Total), Started: st.StartedAt, Updated: st.UpdatedAt}
	if w.file, err = os.OpenFile(filepath.Join(w.dir, dataName), os.O_RDWR, 0); err != nil {
		return err
	}
	return w.rehash(st.Offset)
}

func (w *writer) begin() error {
	w.state.Started = time.Now()
	w.state.Updated = w.state.Started
	if err := os.RemoveAll(w.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	var err error
	if w.file, err = os.OpenFile(filepath.Join(w.dir, dataName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	return writeJSON(filepath.Join(w.dir, stateName), w.state)
}

// rehash hashes the first size bytes of the file, which are all that there are then.
func (w *writer) rehash(size int64) error {
	w.chunks = newChunks()
	w.blob.Hash().Reset()
	w.broken = nil
	if err := w.file.Truncate(size); err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for w.offset = 0; w.offset < size; {
		n, err := w.file.ReadAt(buf[:min(int64(len(buf)), size-w.offset)], w.offset)
		if n == 0 {
			return errors.Join(err, io.ErrUnexpectedEOF)
		}
		w.hash(buf[:n])
		w.offset += int64(n)
	}
	return nil
}

func (w *writer) hash(p []byte) {
	var wg sync.WaitGroup
	if len(p) >= beside {
		wg.Go(func() { w.chunks.write(p) })
	} else {
		w.chunks.write(p)
	}
	w.blob.Hash().Write(p) // never fails
	wg.Wait()
}

// usable says why the writer is of no use. It is called with mu.
func (w *writer) usable() error {
	if w.file == nil {
		return errors.Join(w.broken, errClosed)
	}
	return w.broken
}

// Write implements content.Writer.
func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return 0, fmt.Errorf("ingest %q: %w", w.state.Ref, err)
	}
	n, err := w.file.WriteAt(p, w.offset)
	if (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)) && w.store.node.MakeRoom() {
		var more int
		more, err = w.file.WriteAt(p[n:], w.offset+int64(n))
		n += more
	}
	w.hash(p[:n])
	w.offset += int64(n)
	w.state.Updated = time.Now()
	if err != nil {
		return n, fmt.Errorf("ingest %q: %w", w.state.Ref, err)
	}
	return n, nil
}

// Digest implements content.Writer: of what was written up to now.
func (w *writer) Digest() digest.Digest {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.blob.Digest()
}

// Status implements content.Writer.
func (w *writer) Status() (ctd.Status, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return ctd.Status{Ref: w.state.Ref, Offset: w.offset, Total: w.state.Total, StartedAt: w.state.Started, UpdatedAt: w.state.Updated}, nil
}

// Truncate implements content.Writer. Of more than nothing, what is left is hashed again.
func (w *writer) Truncate(size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return fmt.Errorf("ingest %q: %w", w.state.Ref, w.usable())
	}
	if size < 0 || size > w.offset {
		return fmt.Errorf("ingest %q has %d bytes and cannot be cut to %d: %w", w.state.Ref, w.offset, size, errdefs.ErrInvalidArgument)
	}
	if err := w.rehash(size); err != nil {
		w.broken = err
		return fmt.Errorf("cut ingest %q: %w", w.state.Ref, err)
	}
	w.state.Updated = time.Now()
	return nil
}

// Sync implements content.Syncer.
func (w *writer) Sync() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	return w.file.Sync()
}

// Close implements content.Writer: the ingest can go on later.
func (w *writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := errors.Join(w.file.Sync(), writeJSON(filepath.Join(w.dir, stateName), w.state))
	if err = errors.Join(err, w.closeLocked()); err != nil {
		return fmt.Errorf("close ingest %q: %w", w.state.Ref, err)
	}
	return nil
}

// closeLocked closes the file, and gives the ingest back.
func (w *writer) closeLocked() error {
	file := w.file
	w.file = nil
	w.release()
	if file == nil {
		return nil
	}
	return file.Close()
}

func (w *writer) release() {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	if w.store.active[w.state.Ref] == w {
		delete(w.store.active, w.state.Ref)
	}
}

// abort removes the ingest, unless the writer has ended.
func (w *writer) abort() (ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file == nil {
		return false
	}
	w.broken = errAborted
	if err := errors.Join(os.RemoveAll(w.dir), w.closeLocked()); err != nil {
		w.store.log.Warn("cannot remove an ingest that was aborted", "ref", w.state.Ref, "err", err)
	}
	return true
}

// Commit implements content.Writer. The error is errdefs.ErrFailedPrecondition if it is not of this size or digest, and then the ingest can go on, and
// ErrAlreadyExists if the blob is here.
func (w *writer) Commit(ctx context.Context, size int64, expected digest.Digest, opts ...ctd.Opt) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.commitLocked(ctx, size, expected, opts); err != nil {
		return errors.Join(fmt.Errorf("commit ingest %q: %w", w.state.Ref, err), w.closeLocked())
	}
	return w.closeLocked()
}

func (w *writer) commitLocked(ctx context.Context, size int64, expected digest.Digest, opts []ctd.Opt) error {
	if err := w.usable(); err != nil {
		return err
	}
	var base ctd.Info
	for _, opt := range opts {
		if err := opt(&base); err != nil {
			return err
		}
	}
	if err := checkLabels(base.Labels); err != nil {
		return err
	}
	if size > 0 && size != w.offset {
		return fmt.Errorf("it has %d bytes, %d are expected: %w", w.offset, size, errdefs.ErrFailedPrecondition)
	}
	if err := w.expect(expected); err != nil {
		return err
	}
	f, err := w.chunks.file()
	if err != nil {
		return err
	}
	d := w.blob.Digest()
	err = w.store.commit(ctx, d, filepath.Join(w.dir, dataName), f, base.Labels)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	if err == nil && w.store.committed != nil {
		w.store.committed(d)
	}
	if rerr := os.RemoveAll(w.dir); rerr != nil || err != nil {
		return errors.Join(err, rerr)
	}
	return nil
}

// expect compares with the digest that the blob should have, which may be of another algorithm than the descriptor's was.
func (w *writer) expect(d digest.Digest) error {
	if d == "" {
		return nil
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", d, errdefs.ErrInvalidArgument, err)
	}
	if d.Algorithm() != w.blob.Digest().Algorithm() {
		w.blob = d.Algorithm().Digester()
		if err := w.rehash(w.offset); err != nil {
			return err
		}
	}
	if got := w.blob.Digest(); got != d {
		return fmt.Errorf("its digest is %s, %s is expected: %w", got, d, errdefs.ErrFailedPrecondition)
	}
	return nil
}

func checkLabels(list map[string]string) error {
	for k, v := range list {
		if err := labels.Validate(k, v); err != nil {
			return err
		}
	}
	return nil
}

// commit makes a file the blob with this digest. What it binds, if it is a manifest, is written before its record: without that it counts for nothing.
func (s *Store) commit(ctx context.Context, d digest.Digest, path string, f ipfs.File, list map[string]string) error {
	defer s.lockDigest(d)()
	before, err := s.record(d)
	if err == nil && !before.Unseen {
		return fmt.Errorf("content %s: %w", d, errdefs.ErrAlreadyExists)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	said, err := s.readBindings(path, f.Size)
	if err != nil {
		return err
	}
	now := time.Now()
	bound := bindings{Since: now, Blobs: said}
	if len(said) > 0 {
		if err := writeJSON(s.pathOf(boundName, d), bound); err != nil {
			return err
		}
	}
	// It is committed though who waits for that may not.
	pin := ipfs.Pin{Root: f.Cid, Name: s.pinName(d)}
	s.note(d, &record{Size: f.Size}) // before peers could have it
	if err := s.node.Keep(context.WithoutCancel(ctx), path, f, pin.Name); err != nil {
		s.note(d, nil)
		return err
	}
	if err := s.setRecord(d, record{Root: f.Cid.String(), Size: f.Size, Created: now, Updated: now, Labels: list}); err != nil {
		s.node.Drop(pin)
		return err
	}
	s.addBound(d, bound)
	return nil
}
