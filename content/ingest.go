package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	dataName  = "data"
	stateName = "state"
	// maxRef bounds the bytes of a ref.
	maxRef = 4096
)

// state is what is known of an ingest, besides its bytes.
type state struct {
	Ref     string    `json:"ref"`
	Total   int64     `json:"total,omitempty"`
	Started time.Time `json:"started"`
	Updated time.Time `json:"updated"` // when it was closed; what was written later, the file tells
}

// ingestDir is where an ingest lies.
func (s *Store) ingestDir(ref string) string {
	return filepath.Join(s.dir, ingestName, digest.FromString(ref).Encoded())
}

// Writer implements content.Ingester. An ingest of this ref that was begun before goes on. The error is errdefs.ErrUnavailable while another writer
// has it, and ErrAlreadyExists if the blob with the descriptor's digest is here.
func (s *Store) Writer(ctx context.Context, opts ...ctd.WriterOpt) (ctd.Writer, error) {
	var o ctd.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	if o.Ref == "" || len(o.Ref) > maxRef {
		return nil, fmt.Errorf("ingest: a ref has 1 to %d bytes, not %d: %w", maxRef, len(o.Ref), errdefs.ErrInvalidArgument)
	}
	algorithm := digest.Canonical
	if d := o.Desc.Digest; d != "" {
		_, err := s.told(ctx, d)
		if err == nil {
			return nil, fmt.Errorf("content %s: %w", d, errdefs.ErrAlreadyExists)
		}
		if !errdefs.IsNotFound(err) {
			return nil, err
		}
		algorithm = d.Algorithm()
	}
	w := &writer{store: s, dir: s.ingestDir(o.Ref), blob: algorithm.Digester(), chunks: newChunks(), state: state{Ref: o.Ref, Total: max(0, o.Desc.Size)}}
	w.mu.Lock() // who finds it waits until it is open
	defer w.mu.Unlock()
	s.mu.Lock()
	_, taken := s.active[o.Ref]
	if !taken {
		s.active[o.Ref] = w
	}
	s.mu.Unlock()
	if taken {
		return nil, fmt.Errorf("ingest %q: another writes it: %w", o.Ref, errdefs.ErrUnavailable)
	}
	if err := w.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("ingest %q: %w", o.Ref, err), w.closeLocked())
	}
	return w, nil
}

// Status implements content.IngestManager.
func (s *Store) Status(_ context.Context, ref string) (ctd.Status, error) {
	s.mu.Lock()
	w := s.active[ref]
	s.mu.Unlock()
	if w != nil {
		return w.Status()
	}
	st, err := readState(s.ingestDir(ref))
	if err != nil {
		return ctd.Status{}, fmt.Errorf("ingest %q: %w", ref, err)
	}
	return st, nil
}

// readState says how an ingest stands that nobody writes. The error is errdefs.ErrNotFound if there is none.
func readState(dir string) (ctd.Status, error) {
	var st state
	err := readJSON(filepath.Join(dir, stateName), &st)
	var info os.FileInfo
	if err == nil {
		info, err = os.Stat(filepath.Join(dir, dataName))
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return ctd.Status{}, err
	}
	return ctd.Status{Ref: st.Ref, Offset: info.Size(), Total: st.Total, StartedAt: st.Started, UpdatedAt: later(st.Updated, info.ModTime())}, nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// ListStatuses implements content.IngestManager.
func (s *Store) ListStatuses(ctx context.Context, fs ...string) ([]ctd.Status, error) {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, ingestName))
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	var list []ctd.Status
	for _, e := range entries {
		st, err := readState(filepath.Join(s.dir, ingestName, e.Name()))
		if err == nil {
			st, err = s.Status(ctx, st.Ref) // its writer knows more
		}
		if errdefs.IsNotFound(err) {
			continue // it ended meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list ingests: %w", err)
		}
		if filter.Match(adaptStatus(st)) {
			list = append(list, st)
		}
	}
	return list, nil
}

func adaptStatus(st ctd.Status) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 1 && path[0] == "ref" {
			return st.Ref, true
		}
		return "", false
	})
}

// Abort implements content.IngestManager. A writer of the ingest can do nothing any more.
func (s *Store) Abort(_ context.Context, ref string) error {
	for {
		s.mu.Lock()
		w := s.active[ref]
		s.mu.Unlock()
		if w == nil {
			break
		}
		if w.abort() {
			return nil
		}
	}
	dir := s.ingestDir(ref)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("ingest %q: %w", ref, errdefs.ErrNotFound)
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("abort ingest %q: %w", ref, err)
	}
	return nil
}

// removeUnfinished removes what a crash has left of files in the making, and of ingests that were about to begin or had ended.
func (s *Store) removeUnfinished() error {
	for _, what := range []string{blobsName, boundName} {
		left, err := filepath.Glob(filepath.Join(s.dir, what, "*", tempPattern))
		if err != nil {
			return err
		}
		for _, path := range left {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	root := filepath.Join(s.dir, ingestName)
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		dir := filepath.Join(root, e.Name())
		if _, err := readState(dir); err == nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}
