//go:build linux

package snapshotter

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/reference"
	snapshots "github.com/containerd/containerd/v2/pkg/snapshotters"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/layer"
)

// labelSource begins containerd's labels of where a blob was pulled from: the registry's host follows, and its value is
// the repositories there, with commas between them.
const labelSource = "containerd.io/distribution.source."

// Origins are told where images are kept besides on peers.
type Origins interface {
	// Located says which repositories have an image and its record, as HOST/NAME, the best first: it was pulled from there.
	Located(record cid.Cid, repositories ...string)
	// Claimed says the same, where nobody but the image itself says so.
	Claimed(record cid.Cid, repositories ...string)
	// Recorded says what the record of an image is.
	Recorded(record cid.Cid, m *layer.Image)
}

// noOrigins is told, and tells nobody.
type noOrigins struct{}

func (noOrigins) Located(cid.Cid, ...string)     {}
func (noOrigins) Claimed(cid.Cid, ...string)     {}
func (noOrigins) Recorded(cid.Cid, *layer.Image) {}

// labelRef is how containerd says what is being pulled, to a snapshotter that wants to know (enable_remote_snapshot_annotations).
const labelRef = snapshots.TargetRefLabel

// pulledFrom is the repository of a reference, as HOST/NAME; empty if it is none.
func pulledFrom(ref string) string {
	spec, err := reference.Parse(ref)
	if err != nil || !strings.Contains(spec.Locator, "/") {
		return ""
	}
	return spec.Locator
}

// withPort puts the port of the repository that an image was pulled from, if that has one, to those that are it: the labels of a manifest leave
// it out.
func withPort(pulled string, repositories []string) []string {
	host, name, _ := strings.Cut(pulled, "/")
	u, err := url.Parse("//" + host)
	if pulled == "" || err != nil || u.User != nil {
		return repositories
	}
	bare := u.Hostname() + "/" + name
	if !slices.Contains(repositories, bare) {
		return repositories
	}
	return slices.Insert(slices.DeleteFunc(repositories, func(r string) bool { return r == bare }), 0, pulled)
}

// provenRef returns what containerd says that it pulls a layer of, if it is containerd that says so: an image can have the same among its
// annotations, which containerd only then does not put in the place of its own when it says nothing of it. Its own stand in no manifest.
func (s *Snapshotter) provenRef(ctx context.Context, req *request, depth int) string {
	if req.pulled == "" || s.manifests == nil || containerdNamespace(req.key) == "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, containerdNamespace(req.key)), manifestTimeout)
	defer cancel()
	found, said := 0, false
	err := s.manifests.Walk(ctx, func(info content.Info) error {
		m, err := s.readManifest(ctx, info)
		if err != nil {
			return err
		}
		found++
		said = said || slices.ContainsFunc(m.Layers, func(l ocispec.Descriptor) bool { _, ok := l.Annotations[labelRef]; return ok })
		return nil
	}, manifestFilter(depth, req.digest))
	if err != nil || found == 0 || said {
		return ""
	}
	return req.pulled
}

// readManifest reads a manifest in containerd's content store.
func (s *Snapshotter) readManifest(ctx context.Context, info content.Info) (m ocispec.Manifest, err error) {
	if info.Size > maxManifest {
		return m, fmt.Errorf("it has %d bytes", info.Size)
	}
	b, err := content.ReadBlob(ctx, s.manifests, ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// sourcesOf are the repositories that a manifest was pulled from.
func sourcesOf(info content.Info) (repositories []string) {
	for _, name := range slices.Sorted(maps.Keys(info.Labels)) {
		host, ok := strings.CutPrefix(name, labelSource)
		if !ok || host == "" {
			continue
		}
		for repository := range strings.SplitSeq(info.Labels[name], ",") {
			repositories = append(repositories, host+"/"+repository)
		}
	}
	return repositories
}

// locate tells where the image is kept that a layer is pulled of: where containerd pulls its manifest from, which it
// has by then, and else where it was written to.
func (s *Snapshotter) locate(ctx context.Context, req *request, depth int) {
	var repositories []string
	if namespace := containerdNamespace(req.key); s.manifests != nil && namespace != "" {
		ctx, cancel := context.WithTimeout(namespaces.WithNamespace(ctx, namespace), manifestTimeout)
		defer cancel()
		err := s.manifests.Walk(ctx, func(info content.Info) error {
			repositories = append(repositories, sourcesOf(info)...)
			return nil
		}, manifestFilter(depth, req.digest))
		if err != nil && ctx.Err() == nil {
			s.log.Debug("containerd does not say where an image is pulled from", "layer", req.digest.String(), "err", err)
		}
	}
	s.origins.Located(req.image, withPort(req.pulled, repositories)...)
	s.origins.Claimed(req.image, req.origin)
}

// locateImage returns the hints of an image, and tells who it is said to be on: peers, and where images are kept. These
// learn what is in it behind the caller.
func (s *Snapshotter) locateImage(ctx context.Context, im *imageFiles) hints {
	h := s.newestHints(ctx, im)
	s.hint(im.chain, namedPeers(h.peers))
	if _, none := s.origins.(noOrigins); none || !h.record.Defined() {
		return h
	}
	s.origins.Located(h.record, withPort(im.pulled, h.sources)...)
	s.origins.Claimed(h.record, h.origin)
	s.opener.learn(ctx, h.record)
	return h
}

// manifestFilter finds manifests whose layer at a depth this is.
func manifestFilter(depth int, l digest.Digest) string {
	return fmt.Sprintf(`labels."containerd.io/gc.ref.content.l.%d"==%s`, depth, l)
}
