package registry

import (
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxRecent is how many manifests recent remembers.
const maxRecent = 64

// recent remembers what the manifests name that were asked for last by nothing but their digest:
// a client asks for the blobs next, and does not say of which image they are.
type recent struct {
	mu   sync.Mutex
	list []named // the latest last
}

type named struct {
	manifest digest.Digest
	names    []digest.Digest
}

func (r *recent) add(manifest digest.Digest, names []digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = slices.DeleteFunc(r.list, func(n named) bool { return n.manifest == manifest })
	if len(r.list) == maxRecent {
		r.list = slices.Delete(r.list, 0, 1)
	}
	r.list = append(r.list, named{manifest, names})
}

// has says whether one of them is, or names, a blob.
func (r *recent) has(blob digest.Digest) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.list, func(n named) bool {
		return n.manifest == blob || slices.Contains(n.names, blob)
	})
}
