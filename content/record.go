package content

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	ctd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

const (
	blobsName  = "blobs"
	ingestName = "ingest"
	boundName  = "bound"
)

// A record is what is known of a blob that is owed to somebody.
type record struct {
	Root    string            `json:"root"` // of the file of LayoutBlob, a CID
	Size    int64             `json:"size"`
	Created time.Time         `json:"created"`
	Updated time.Time         `json:"updated"`
	Labels  map[string]string `json:"labels,omitempty"`
	Unseen  bool              `json:"unseen,omitempty"` // only a manifest says that it is the one of its digest; it is not pinned

	DAG bool `json:"dag,omitempty"` // its digest is that of its root, and not that of its bytes

	Public   bool `json:"public,omitempty"`   // others may have it (Publish)
	Manifest bool `json:"manifest,omitempty"` // and are told of it
}

func (r record) info(d digest.Digest) ctd.Info {
	return ctd.Info{Digest: d, Size: r.Size, CreatedAt: r.Created, UpdatedAt: r.Updated, Labels: r.Labels}
}

func (s *Store) recordPath(d digest.Digest) string { return s.pathOf(blobsName, d) }

// pathOf is where what belongs to a digest lies. The digest is valid.
func (s *Store) pathOf(what string, d digest.Digest) string {
	return filepath.Join(s.dir, what, d.Algorithm().String(), d.Encoded())
}

// record reads what is known of a blob. The error is errdefs.ErrNotFound if that is nothing, and ErrInvalidArgument if d is no digest.
func (s *Store) record(d digest.Digest) (r record, err error) {
	if err := d.Validate(); err != nil {
		return r, fmt.Errorf("content %q: %w: %w", d, errdefs.ErrInvalidArgument, err)
	}
	err = readJSON(s.recordPath(d), &r)
	if errors.Is(err, fs.ErrNotExist) {
		err = errdefs.ErrNotFound
	}
	if err != nil {
		return r, fmt.Errorf("content %s: %w", d, err)
	}
	return r, nil
}

func (s *Store) setRecord(d digest.Digest, r record) error {
	if err := writeJSON(s.recordPath(d), r); err != nil {
		return fmt.Errorf("content %s: %w", d, err)
	}
	s.note(d, &r)
	return nil
}

// removeRecord forgets a blob.
func (s *Store) removeRecord(d digest.Digest) error {
	err := removeFile(s.recordPath(d))
	if err == nil {
		s.note(d, nil)
	}
	return err
}

// Update implements content.Manager.
func (s *Store) Update(_ context.Context, info ctd.Info, fields ...string) (ctd.Info, error) {
	defer s.lockDigest(info.Digest)()
	r, err := s.record(info.Digest)
	if err != nil {
		return ctd.Info{}, err
	}
	labels := maps.Clone(r.Labels)
	if len(fields) == 0 {
		fields = []string{"labels"}
	}
	for _, field := range fields {
		key, one := strings.CutPrefix(field, "labels.")
		switch {
		case one && labels == nil:
			labels = map[string]string{key: info.Labels[key]}
		case one:
			labels[key] = info.Labels[key]
		case field == "labels":
			labels = maps.Clone(info.Labels)
		default:
			return ctd.Info{}, fmt.Errorf("content %s: field %q cannot be updated: %w", info.Digest, field, errdefs.ErrInvalidArgument)
		}
	}
	maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
	if err := checkLabels(labels); err != nil {
		return ctd.Info{}, fmt.Errorf("content %s: %w", info.Digest, err)
	}
	r.Labels, r.Updated = labels, time.Now()
	if err := s.setRecord(info.Digest, r); err != nil {
		return ctd.Info{}, err
	}
	return r.info(info.Digest), nil
}

// Walk implements content.Manager. It lists what was ingested, and what somebody was told of.
func (s *Store) Walk(ctx context.Context, fn ctd.WalkFunc, fs ...string) error {
	filter, err := filters.ParseAll(fs...)
	if err != nil {
		return fmt.Errorf("walk content: %w", err)
	}
	return s.each(blobsName, func(d digest.Digest) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		r, err := s.record(d)
		if errdefs.IsNotFound(err) {
			return nil // it was deleted meanwhile
		}
		if err != nil {
			return err
		}
		if info := r.info(d); filter.Match(ctd.AdaptInfo(info)) {
			return fn(info)
		}
		return nil
	})
}

// each calls fn with the digests that something lies under.
func (s *Store) each(what string, fn func(digest.Digest) error) error {
	algorithms, err := os.ReadDir(filepath.Join(s.dir, what))
	if err != nil {
		return err
	}
	for _, algorithm := range algorithms {
		entries, err := os.ReadDir(filepath.Join(s.dir, what, algorithm.Name()))
		if err != nil {
			return err
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm.Name()), e.Name())
			if d.Validate() != nil {
				continue // a file in the making
			}
			if err := fn(d); err != nil {
				return err
			}
		}
	}
	return nil
}

// readJSON reads what writeJSON wrote.
func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// tempPattern is what files in the making are called.
const tempPattern = ".new-*"

// writeJSON writes a file, as a whole and durably, or not at all.
func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, tempPattern)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return syncDir(dir)
}

// removeFile removes a file that may be there, durably.
func removeFile(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
