//go:build linux

package snapshotter

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/mediatype"
)

const (
	// maxManifest bounds a manifest that is read, and maxManifests how many of one image are.
	maxManifest  = 4 << 20
	maxManifests = 64
	// manifestTimeout is how long containerd may take to say which there are.
	manifestTimeout = 5 * time.Second
)

// hints are what an image says of getting its files ahead of need, in the annotations of its
// layers.
type hints struct {
	record cid.Cid // image record; Undef if none is named
	fill   string  // whether to fetch all files
	peers  string  // as the annotation has them
	origin string  // repository that it was written to

	pulled  string   // repository that it was pulled from first, if containerd said so; of a snapshot only
	sources []string // repositories that it was pulled from, if that is known
}

func readHints(annotations map[string]string) (h hints) {
	// What cannot be read is as good as none.
	if c, err := cid.Decode(annotations[mediatype.AnnotationImage]); err == nil {
		h.record = c
	}
	h.fill, h.peers = annotations[mediatype.AnnotationFill], annotations[mediatype.AnnotationPeers]
	h.origin = annotations[mediatype.AnnotationOrigin]
	return h
}

// containerdNamespace is the namespace of containerd that a snapshot is of: containerd names them
// "namespace/number/key". It is empty for others.
func containerdNamespace(key string) string {
	namespace, rest, _ := strings.Cut(key, "/")
	if !strings.Contains(rest, "/") {
		return ""
	}
	return namespace
}

// newestHints returns the hints of the image as it was pulled last. A snapshot's labels are
// those of its first pull: of an image that is pulled again with the same layers and, say, a
// new profile, containerd tells the snapshotter nothing. But its content store knows the
// manifests that refer to the topmost layer.
func (s *Snapshotter) newestHints(ctx context.Context, im *imageFiles) hints {
	if s.manifests == nil || im.namespace == "" {
		return im.hints
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, im.namespace), manifestTimeout)
	defer cancel()
	found, err := s.findManifests(ctx, im)
	if err != nil && ctx.Err() == nil {
		s.log.Debug("containerd does not say how an image was pulled last", "chain", im.chain.String(), "err", err)
	}
	for _, info := range found {
		h, err := s.manifestHints(ctx, info, im)
		if err == nil {
			return h
		}
		s.log.Debug("a manifest says nothing of an image", "manifest", info.Digest.String(), "chain", im.chain.String(), "err", err)
	}
	return im.hints
}

// findManifests lists the blobs that refer to the topmost ipcs layer of an image as the layer that
// it is, the newest first.
func (s *Snapshotter) findManifests(ctx context.Context, im *imageFiles) ([]content.Info, error) {
	top, err := mediatype.LayerDigest(im.roots[0])
	if err != nil {
		return nil, err
	}
	var found []content.Info
	err = s.manifests.Walk(ctx, func(info content.Info) error {
		found = append(found, info)
		return nil
	}, manifestFilter(im.depth, top))
	slices.SortFunc(found, func(a, b content.Info) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return found[:min(len(found), maxManifests)], err
}

// isIPCS says whether a layer is mounted lazily. BuildKit leaves out its annotations.
func isIPCS(l ocispec.Descriptor) bool {
	return l.MediaType == mediatype.Layer && l.Annotations[mediatype.AnnotationKeep] != "true"
}

var errOtherImage = errors.New("it is of another image")

// manifestHints reads the hints in a manifest, if it has the layers of the image.
func (s *Snapshotter) manifestHints(ctx context.Context, info content.Info, im *imageFiles) (h hints, err error) {
	m, err := s.readManifest(ctx, info)
	if err != nil {
		return h, err
	}
	if len(m.Layers) <= im.depth || slices.ContainsFunc(m.Layers[im.depth+1:], isIPCS) {
		return h, errOtherImage // as one that was built on this one
	}
	var digests []digest.Digest
	for _, l := range slices.Backward(m.Layers[:im.depth+1]) {
		if isIPCS(l) {
			digests = append(digests, l.Digest)
		}
	}
	same := slices.EqualFunc(digests, im.roots, func(d digest.Digest, root cid.Cid) bool {
		want, err := mediatype.LayerDigest(root)
		return err == nil && d == want
	})
	if !same {
		return h, errOtherImage
	}
	h = readHints(m.Layers[im.depth].Annotations)
	h.sources = sourcesOf(info)
	return h, nil
}
