package content

import (
	"encoding/json"
	"errors"
	"hash"
	"os"
	"slices"
	"sync"
	"time"

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
	// maxBound bounds the blobs that are bound, of all manifests.
	maxBound = 1 << 18
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

// bound is a blob that is had because manifests say which file it is. Store.mu guards manifests.
type bound struct {
	digest    digest.Digest
	root      cid.Cid
	size      int64
	since     time.Time
	manifests []digest.Digest // who says so

	mu   sync.Mutex
	file ipfs.File // with its leaves, once they are known
	hash hash.Hash // of the bytes before next, in the order in which they were read
	next int64
	bad  error // it is not the blob of this digest
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

// bind believes a manifest that was ingested, durably.
func (s *Store) bind(manifest digest.Digest, list []binding) error {
	if len(list) == 0 {
		return nil
	}
	b := bindings{Since: time.Now(), Blobs: list}
	if err := writeJSON(s.pathOf(boundName, manifest), b); err != nil {
		return err
	}
	s.addBound(manifest, b)
	return nil
}

func (s *Store) addBound(manifest digest.Digest, list bindings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range list.Blobs {
		root, err := cid.Decode(one.Root)
		if err != nil || !isBlobRoot(root, one.Size) || one.Digest.Validate() != nil || len(s.bound) >= maxBound {
			continue
		}
		if _, err := os.Stat(s.recordPath(one.Digest)); err == nil {
			continue
		}
		b := s.bound[one.Digest]
		if b == nil {
			b = &bound{digest: one.Digest, root: root, size: one.Size, since: list.Since}
			s.bound[one.Digest] = b
		}
		if b.root.Equals(root) && b.size == one.Size && !slices.Contains(b.manifests, manifest) {
			b.manifests = append(b.manifests, manifest)
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

// boundTo returns what a digest is bound to, or nil.
func (s *Store) boundTo(d digest.Digest) *bound {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound[d]
}

// forget ends the binding of a digest, because it is here or not what was said, and says whether there was one.
func (s *Store) forget(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.bound[d]
	delete(s.bound, d)
	return ok
}

// unbind forgets what a manifest says, which is about to be deleted.
func (s *Store) unbind(manifest digest.Digest) error {
	if err := removeFile(s.pathOf(boundName, manifest)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, b := range s.bound {
		b.manifests = slices.DeleteFunc(b.manifests, func(m digest.Digest) bool { return m == manifest })
		if len(b.manifests) == 0 {
			delete(s.bound, d)
		}
	}
	return nil
}

// refute ends a binding that is wrong, durably: no manifest that says so is believed again.
func (s *Store) refute(b *bound) error {
	s.mu.Lock()
	if s.bound[b.digest] == b {
		delete(s.bound, b.digest)
	}
	manifests := slices.Clone(b.manifests)
	s.mu.Unlock()
	var errs []error
	for _, manifest := range manifests {
		errs = append(errs, s.withdraw(manifest, b.digest))
	}
	return errors.Join(errs...)
}

// withdraw removes one blob from what a manifest says.
func (s *Store) withdraw(manifest, d digest.Digest) error {
	defer s.lockDigest(manifest)()
	var list bindings
	if err := readJSON(s.pathOf(boundName, manifest), &list); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	list.Blobs = slices.DeleteFunc(list.Blobs, func(one binding) bool { return one.Digest == d })
	return writeJSON(s.pathOf(boundName, manifest), list)
}
