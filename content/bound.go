package content

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

const (
	// maxManifest bounds what is looked at as a manifest, and maxBindings what one may bind.
	maxManifest = 4 << 20
	maxBindings = 1024
	// maxBound bounds the blobs that are bound, of all manifests, and maxCandidates the files that one may be.
	maxBound      = 1 << 18
	maxCandidates = 16
	// MaxBound bounds the size of a blob that is only bound.
	MaxBound = 64 << 30
)

// A binding is what a manifest says of one blob.
type binding struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
	Root   string        `json:"root"`
}

// bindings are what one manifest says.
type bindings struct {
	Since time.Time `json:"since"`
	Blobs []binding `json:"blobs"`
}

// A candidate is a file that manifests say a blob is. Store.mu guards manifests.
type candidate struct {
	root      cid.Cid
	size      int64
	since     time.Time
	manifests []digest.Digest // who says so
}

// parseBindings returns what a manifest binds; of what is none, nothing.
func parseBindings(data []byte) (list []binding) {
	var m struct {
		Config ocispec.Descriptor   `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
	}
	if json.Unmarshal(data, &m) != nil {
		return nil
	}
	for _, desc := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		root, ok := desc.Annotations[mediatype.AnnotationBlob]
		if !ok || len(list) == maxBindings {
			continue
		}
		if c, err := cid.Decode(root); err != nil || !isBlobRoot(c, desc.Size) || desc.Digest.Validate() != nil {
			continue
		}
		list = append(list, binding{desc.Digest, desc.Size, root})
	}
	return list
}

// isBlobRoot says whether a file of LayoutBlob of this size may have this CID.
func isBlobRoot(c cid.Cid, size int64) bool {
	if size <= 0 || size > MaxBound || c.Prefix().Version != 1 {
		return false
	}
	codec := uint64(cid.DagProtobuf)
	if ipfs.LayoutBlob.NumLeaves(size) == 1 {
		codec = cid.Raw
	}
	return c.Type() == codec && ipfs.IsSHA256(c)
}

// readBindings returns what the blob at path binds, if it is a manifest.
func (s *Store) readBindings(path string, size int64) ([]binding, error) {
	if size > maxManifest {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, nil
	}
	return parseBindings(data), nil
}

// addBound believes a manifest: what several say of a blob, each other candidate is for.
func (s *Store) addBound(manifest digest.Digest, list bindings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range list.Blobs {
		root, err := cid.Decode(one.Root)
		if err != nil || !isBlobRoot(root, one.Size) || one.Digest.Validate() != nil {
			continue
		}
		all := s.bound[one.Digest]
		i := slices.IndexFunc(all, func(c *candidate) bool { return c.root.Equals(root) && c.size == one.Size })
		switch {
		case i < 0 && (len(s.bound) >= maxBound || len(all) >= maxCandidates):
			continue
		case i < 0:
			s.bound[one.Digest] = append(all, &candidate{root: root, size: one.Size, since: list.Since, manifests: []digest.Digest{manifest}})
		case !slices.Contains(all[i].manifests, manifest):
			all[i].manifests = append(all[i].manifests, manifest)
		}
	}
}

// loadBound reads what manifests say that are here.
func (s *Store) loadBound() error {
	return s.each(boundName, func(manifest digest.Digest) error {
		if _, err := os.Stat(s.recordPath(manifest)); err != nil {
			return removeFile(s.pathOf(boundName, manifest)) // it was deleted
		}
		var list bindings
		if err := readJSON(s.pathOf(boundName, manifest), &list); err != nil {
			return err
		}
		s.addBound(manifest, list)
		return nil
	})
}

// candidate returns the first file that a manifest says a blob is, or nil.
func (s *Store) candidate(d digest.Digest) *candidate {
	s.mu.Lock()
	defer s.mu.Unlock()
	if all := s.bound[d]; len(all) > 0 {
		return all[0]
	}
	return nil
}

// unbind forgets what a manifest says, which is about to be deleted.
func (s *Store) unbind(manifest digest.Digest) error {
	if err := removeFile(s.pathOf(boundName, manifest)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, all := range s.bound {
		for _, c := range all {
			c.manifests = slices.DeleteFunc(c.manifests, func(m digest.Digest) bool { return m == manifest })
		}
		s.keepLocked(d, func(c *candidate) bool { return len(c.manifests) > 0 })
	}
	return nil
}

// keepLocked keeps those candidates of a blob.
func (s *Store) keepLocked(d digest.Digest, keep func(*candidate) bool) {
	s.bound[d] = slices.DeleteFunc(s.bound[d], func(c *candidate) bool { return !keep(c) })
	if len(s.bound[d]) == 0 {
		delete(s.bound, d)
	}
}

// refute ends the belief that a blob is this file, durably. Its record is of the next candidate then, or goes.
func (s *Store) refute(d digest.Digest, root cid.Cid) error {
	var manifests []digest.Digest
	s.mu.Lock()
	delete(s.lazy, d)
	s.keepLocked(d, func(c *candidate) bool {
		wrong := c.root.Equals(root)
		if wrong {
			manifests = append(manifests, c.manifests...)
		}
		return !wrong
	})
	s.mu.Unlock()
	var errs []error
	for _, manifest := range manifests {
		errs = append(errs, s.withdraw(manifest, d, root))
	}
	return errors.Join(append(errs, s.next(d, root))...)
}

// next gives a blob whose file was refuted the next candidate.
func (s *Store) next(d digest.Digest, wrong cid.Cid) error {
	defer s.lockDigest(d)()
	r, err := s.record(d)
	if err != nil || !r.Unseen || r.Root != wrong.String() {
		if errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	if c := s.candidate(d); c != nil && c.size == r.Size {
		r.Root = c.root.String()
		return s.setRecord(d, r)
	}
	return s.removeRecord(d)
}

// withdraw removes what a manifest says of one blob.
func (s *Store) withdraw(manifest, d digest.Digest, root cid.Cid) error {
	defer s.lockDigest(manifest)()
	var list bindings
	if err := readJSON(s.pathOf(boundName, manifest), &list); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	list.Blobs = slices.DeleteFunc(list.Blobs, func(one binding) bool { return one.Digest == d && one.Root == root.String() })
	return writeJSON(s.pathOf(boundName, manifest), list)
}
