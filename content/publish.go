package content

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

// known is what all blobs that were seen mean for others, in memory. Store.mu guards it.
type known struct {
	manifests map[digest.Digest]bool // of which others may be told, and whether they are public
	private   map[cid.Cid]struct{}   // blobs of one chunk that were not: whoever knows their digest knows their root
}

func newKnown() known {
	return known{map[digest.Digest]bool{}, map[cid.Cid]struct{}{}}
}

// IsPin says whether a pin with this name is one of a content store.
func IsPin(name string) bool { return strings.HasPrefix(name, pinPrefix) }

// Blob returns the file of a blob whose bytes were seen, without its leaves, and whether it was published. The error is errdefs.ErrNotFound if there is none.
func (s *Store) Blob(d digest.Digest) (f ipfs.File, public bool, err error) {
	r, err := s.record(d)
	if err != nil {
		return f, false, err
	}
	if r.Unseen || r.DAG {
		return f, false, fmt.Errorf("content %s: nobody has seen bytes of this digest: %w", d, errdefs.ErrNotFound)
	}
	root, err := cid.Decode(r.Root)
	return ipfs.File{Cid: root, Size: r.Size, Layout: ipfs.LayoutBlob}, r.Public, err
}

// Publish notes, durably, that others may have a blob, and that it is a manifest, of which they may be told. Labels and times stay. The error is errdefs.ErrNotFound if
// its bytes are not here.
func (s *Store) Publish(d digest.Digest, public, manifest bool) error {
	defer s.lockDigest(d)()
	r, err := s.record(d)
	if err == nil && (r.Unseen || r.DAG) {
		err = errdefs.ErrNotFound
	}
	before := r
	r.Public, r.Manifest = r.Public || public, r.Manifest || manifest
	if err != nil || r.Public == before.Public && r.Manifest == before.Manifest {
		return err
	}
	return s.setRecord(d, r)
}

// Manifests are those that were published; or all, whether they are public or not.
func (s *Store) Manifests(all bool) (list []digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, public := range s.known.manifests {
		if public || all {
			list = append(list, d)
		}
	}
	return list
}

// IsPrivate says whether a block is a blob of one chunk that was not published. Whoever knows the digest of such a blob could ask for its block.
func (s *Store) IsPrivate(c cid.Cid) bool {
	if c.Type() != cid.Raw {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, private := s.known.private[asV1(c)]
	return private
}

// asV1 is a raw block's CID as records have it.
func asV1(c cid.Cid) cid.Cid { return cid.NewCidV1(cid.Raw, c.Hash()) }

// note brings what is known into line with a record, or with that there is none any more.
func (s *Store) note(d digest.Digest, r *record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r != nil && r.Manifest {
		s.known.manifests[d] = r.Public
	} else {
		delete(s.known.manifests, d)
	}
	root, err := mediatype.BlobCid(d) // of a blob of one chunk, the root
	if err != nil {
		return
	}
	if r != nil && !r.Public && !r.Unseen && !r.DAG && ipfs.LayoutBlob.NumLeaves(r.Size) == 1 {
		s.known.private[root] = struct{}{}
	} else {
		delete(s.known.private, root)
	}
}

// loadKnown reads what records say.
func (s *Store) loadKnown() error {
	return s.each(blobsName, func(d digest.Digest) error {
		r, err := s.record(d)
		if err != nil {
			s.log.Error("what is known of a blob cannot be read", "digest", d.String(), "err", err)
			return nil
		}
		s.note(d, &r)
		return nil
	})
}
