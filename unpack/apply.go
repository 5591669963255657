//go:build linux

package unpack

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// Apply applies a layer to the mounts. For an ipcs layer, the digest that is returned is
// that of the layer, which is the diffID of converted images, since all that was written
// was proven from it; with kept diffIDs it is that of the tar.
//
// Types that need a stream processor of containerd's configuration, such as encrypted
// layers, are not for us: the error is errdefs.ErrNotImplemented, on which containerd's diff
// service asks its next differ.
func (d *Differ) Apply(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, opts ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	if desc.MediaType != mediatype.Layer {
		if !isTar(ctx, desc.MediaType) {
			return ocispec.Descriptor{}, fmt.Errorf("apply layer %s: %w: the media type %s is neither an ipcs layer nor a tar", desc.Digest, errdefs.ErrNotImplemented, desc.MediaType)
		}
		return d.applier.Apply(ctx, desc, mounts, opts...)
	}
	var config diff.ApplyConfig
	for _, opt := range opts {
		if err := opt(ctx, desc, &config); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("unpack layer %s: option: %w", desc.Digest, err)
		}
	}
	applied, err := d.applyLayer(ctx, desc, mounts, &config)
	if err != nil {
		return ocispec.Descriptor{}, explain(fmt.Errorf("unpack layer %s: %w", desc.Digest, err))
	}
	return applied, nil
}

// isTar says whether a layer of this type is a tar, compressed or not, that nothing has to
// be done to before it is applied.
func isTar(ctx context.Context, mediaType string) bool {
	_, err := images.DiffCompression(ctx, mediaType)
	return err == nil && !slices.Contains(strings.Split(mediaType, "+"), "encrypted")
}

func (d *Differ) applyLayer(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount, config *diff.ApplyConfig) (ocispec.Descriptor, error) {
	root, err := mediatype.RootCid(desc.Digest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	p := &progress{report: config.Progress, whole: desc.Size}
	p.start()
	applied := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: desc.Digest, Size: desc.Size}
	if adopted, err := d.adopt(ctx, desc, mounts); err != nil || adopted {
		p.end()
		return applied, err
	}
	l, err := layer.Open(ctx, d.node, root)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p.total = contents(l.Index)
	err = withTarget(ctx, mounts, func(to target) error {
		if desc.Annotations[mediatype.AnnotationKeep] != "true" {
			return d.extract(ctx, l.Index, to, config.SyncFs, p)
		}
		var err error
		applied.Digest, applied.Size, err = d.applyTar(ctx, l, to, config.SyncFs)
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p.end()
	return applied, nil
}

// adopt asks the snapshotter whether it mounts the layer in place of its being unpacked. A
// layer with a kept diffID is unpacked always: that is the digest of its tar.
func (d *Differ) adopt(ctx context.Context, desc ocispec.Descriptor, mounts []mount.Mount) (bool, error) {
	s, ok := stackOf(mounts)
	if d.adopter == nil || !ok || desc.Annotations[mediatype.AnnotationKeep] == "true" {
		return false, nil
	}
	dir := s.upper
	if !s.overlay {
		dir = s.dirs[0]
	}
	return d.adopter.Adopt(ctx, dir, desc)
}

// contents returns the sum of the sizes of all files of an index.
func contents(x *layer.Index) int64 {
	var n int64
	for i := range x.Entries {
		n += x.Entries[i].Size
	}
	return n
}

// A progress reports how much of a layer was applied. Callers expect a share of the size
// in the descriptor, which for ipcs layers has nothing to do with that of the files: what
// is reported is that share of it which the written bytes are of all.
type progress struct {
	report func(int64)
	whole  int64 // size in the descriptor
	total  int64 // bytes of all files

	mu   sync.Mutex
	done int64 // bytes of files written
	last int64 // reported
}

func (p *progress) start() {
	if p.report != nil {
		p.report(0)
	}
}

// add counts n bytes that were written.
func (p *progress) add(n int64) {
	if p.report == nil || p.total <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = min(p.done+n, p.total)
	if state := int64(float64(p.whole) * (float64(p.done) / float64(p.total))); state > p.last && state < p.whole {
		p.last = state
		p.report(state)
	}
}

// end reports the whole, when all goroutines that add have ended.
func (p *progress) end() {
	if p.report != nil {
		p.report(p.whole)
	}
}
