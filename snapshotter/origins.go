//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/reference"
	snapshots "github.com/containerd/containerd/v2/pkg/snapshotters"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

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

// withPort puts the port into the one of the repositories that an image was pulled from: the labels of its manifest leave it out. Where
// containerd does not say what is pulled, an image could say it in its annotations, so that a repository which they do not name
// is none.
func withPort(pulled string, repositories []string) []string {
	host, name, _ := strings.Cut(pulled, "/")
	if u, err := url.Parse("//" + host); err == nil {
		host = u.Hostname()
	}
	for i, r := range repositories {
		if pulled != "" && r == host+"/"+name {
			return slices.Insert(slices.Delete(repositories, i, i+1), 0, pulled)
		}
	}
	return repositories
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
func (s *Snapshotter) locate(ctx context.Context, record cid.Cid, l digest.Digest, depth int, pulled, origin string) {
	var repositories []string
	if s.manifests != nil {
		ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
		defer cancel()
		err := s.manifests.Walk(ctx, func(info content.Info) error {
			repositories = append(repositories, sourcesOf(info)...)
			return nil
		}, manifestFilter(depth, l))
		if err != nil && ctx.Err() == nil {
			s.log.Debug("containerd does not say where an image is pulled from", "layer", l.String(), "err", err)
		}
	}
	s.origins.Located(record, withPort(pulled, repositories)...)
	s.origins.Claimed(record, origin)
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
