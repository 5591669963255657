//go:build linux

package unpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ordinaryBuffer is how much of a layer goes to containerd at a time.
const ordinaryBuffer = 1 << 20

// tarTypes are the types of ordinary layers that are made of an upper directory.
func tarTypes() map[string]compression.Compression {
	return map[string]compression.Compression{
		ocispec.MediaTypeImageLayer: compression.Uncompressed, images.MediaTypeDockerSchema2Layer: compression.Uncompressed,
		ocispec.MediaTypeImageLayerGzip: compression.Gzip, images.MediaTypeDockerSchema2LayerGzip: compression.Gzip,
	}
}

// ordinary makes an ordinary layer of what an overlay's upper directory holds; ok is false
// if that does not say all. containerd would compare two whole trees, and the contents of all
// files with times of whole seconds, as those of images are: each would have to be fetched.
func (d *Differ) ordinary(ctx context.Context, lower, upper []mount.Mount, config *diff.Config) (desc ocispec.Descriptor, ok bool, err error) {
	kind, known := tarTypes()[config.MediaType]
	if !known || config.Compressor != nil {
		return desc, false, nil
	}
	dir := d.changedDir(lower, upper)
	if dir == "" {
		return desc, false, nil
	}
	err = mount.WithTempMount(ctx, lower, func(lowerRoot string) error {
		return mount.WithReadonlyTempMount(ctx, upper, func(upperRoot string) error {
			c := changes{lower: lowerRoot, merged: upperRoot, upper: dir, epoch: config.SourceDateEpoch}
			var err error
			desc, err = d.writeOrdinary(ctx, &c, kind, config)
			return err
		})
	})
	return desc, true, err
}

// writeOrdinary writes the changes as a tar to containerd's content store.
func (d *Differ) writeOrdinary(ctx context.Context, c *changes, kind compression.Compression, config *diff.Config) (desc ocispec.Descriptor, err error) {
	ref := config.Reference
	if ref == "" {
		ref = "ipcs:layer:" + c.upper
	}
	w, err := content.OpenWriter(ctx, d.content, content.WithRef(ref), content.WithDescriptor(ocispec.Descriptor{MediaType: config.MediaType}))
	if err != nil {
		return desc, fmt.Errorf("write layer to containerd: %w", err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := w.Truncate(0); err != nil { // what an earlier attempt has left
		return desc, err
	}
	buffered := bufio.NewWriterSize(w, ordinaryBuffer)
	compressed, err := compression.CompressStream(buffered, kind)
	if err != nil {
		return desc, err
	}
	tar := digest.SHA256.Digester()
	err = c.writeTar(ctx, io.MultiWriter(compressed, tar.Hash()))
	if err := errors.Join(err, compressed.Close()); err != nil { // closed always: it may have a process
		return desc, err
	}
	if err := buffered.Flush(); err != nil {
		return desc, err
	}
	set := maps.Clone(config.Labels)
	if set == nil {
		set = make(map[string]string)
	}
	set[labels.LabelUncompressed] = tar.Digest().String()
	dgst := w.Digest()
	if err := w.Commit(ctx, 0, dgst, content.WithLabels(set)); err != nil && !errdefs.IsAlreadyExists(err) {
		return desc, fmt.Errorf("write layer %s to containerd: %w", dgst, err)
	}
	info, err := d.content.Info(ctx, dgst)
	if err != nil {
		return desc, err
	}
	if info.Labels[labels.LabelUncompressed] == "" { // it was there already
		info = content.Info{Digest: dgst, Size: info.Size, Labels: set}
		if _, err := d.content.Update(ctx, info, "labels."+labels.LabelUncompressed); err != nil {
			return desc, err
		}
	}
	return ocispec.Descriptor{MediaType: config.MediaType, Digest: dgst, Size: info.Size}, nil
}
