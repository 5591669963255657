//go:build linux

package unpack

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/epoch"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// pinPrefix starts the names of the pins of layers that Compare made; the digest follows.
const pinPrefix = "ipcs:commit:"

// leaseTime is how long what Compare wrote is kept for a caller without a lease: until it
// has written the manifest that refers to it.
const leaseTime = time.Hour

// endLeaseTime is how long the end of a lease may take, whose caller may be gone.
const endLeaseTime = 5 * time.Second

// Compare makes a layer of what upper has changed of lower: an ipcs layer if that media type
// is asked for, else an ordinary one, as containerd makes it. The descriptor of an ipcs layer has the
// annotations by which the snapshotter knows it, and the digest is its diffID.
func (d *Differ) Compare(ctx context.Context, lower, upper []mount.Mount, opts ...diff.Opt) (ocispec.Descriptor, error) {
	var config diff.Config
	for _, opt := range opts {
		if err := opt(&config); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("make layer: option: %w", err)
		}
	}
	if config.SourceDateEpoch == nil {
		config.SourceDateEpoch = epoch.FromContext(ctx)
	}
	if config.MediaType == mediatype.Layer && config.Compressor != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make layer: an ipcs layer is not compressed as a whole: %w", errdefs.ErrInvalidArgument)
	}
	if config.MediaType != mediatype.Layer {
		return d.leased(ctx, func(ctx context.Context) (ocispec.Descriptor, error) {
			if desc, ok, err := d.ordinary(ctx, lower, upper, &config); ok {
				return desc, err
			}
			return d.comparer.Compare(ctx, lower, upper, opts...)
		})
	}
	desc, err := d.leased(ctx, func(ctx context.Context) (ocispec.Descriptor, error) {
		return d.commit(ctx, lower, upper, &config)
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make layer: %w", err)
	}
	return desc, nil
}

// leased calls fn with a lease: the caller's, if it is known, or one that expires by itself,
// and that ends at once when fn fails.
func (d *Differ) leased(ctx context.Context, fn func(context.Context) (ocispec.Descriptor, error)) (ocispec.Descriptor, error) {
	if _, ok := leases.FromContext(ctx); ok || d.leases == nil {
		return fn(ctx)
	}
	l, err := d.leases.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("make a lease: %w", err)
	}
	desc, err := fn(leases.WithLease(ctx, l.ID))
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLeaseTime)
		defer cancel()
		if derr := d.leases.Delete(ctx, l); derr != nil {
			d.log.Warn("a lease that holds nothing of use is left until it expires", "lease", l.ID, "error", derr)
		}
	}
	return desc, err
}

func (d *Differ) commit(ctx context.Context, lower, upper []mount.Mount, config *diff.Config) (ocispec.Descriptor, error) {
	dir := d.changedDir(lower, upper)
	var res *layer.Result
	err := mount.WithTempMount(ctx, lower, func(lowerRoot string) error {
		return mount.WithReadonlyTempMount(ctx, upper, func(upperRoot string) error {
			c := changes{lower: lowerRoot, merged: upperRoot, upper: dir, epoch: config.SourceDateEpoch}
			var err error
			res, err = d.writeLayer(ctx, &c)
			return err
		})
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	dgst, err := mediatype.LayerDigest(res.Root.Cid)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{MediaType: mediatype.Layer, Digest: dgst, Size: int64(len(res.Root.Data))}
	if err := d.publish(ctx, desc, res.Root.Data, config); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write layer root %s to containerd: %w", dgst, err)
	}
	// Last, so that nothing stays pinned when something fails.
	if err := d.node.Pin(ctx, ipfs.Pin{Root: res.Root.Cid, Name: pinPrefix + dgst.String()}); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("pin layer %s: %w", dgst, err)
	}
	desc.Annotations = map[string]string{
		mediatype.AnnotationRoot:   res.Root.Cid.String(),
		mediatype.AnnotationDiffID: res.DiffID.String(),
	}
	return desc, nil
}

// changedDir returns the upper directory that holds all that was changed, or nothing if that
// cannot be told.
func (d *Differ) changedDir(lower, upper []mount.Mount) string {
	dir := upperDir(lower, upper)
	if dir == "" {
		d.log.Debug("comparing whole trees: the mounts do not show an upper directory")
		return ""
	}
	if why, err := tellsAll(dir); err != nil || why != "" {
		d.log.Info("comparing whole trees: the upper directory does not say all", "dir", dir, "why", why, "error", err)
		return ""
	}
	return dir
}

// writeLayer writes the changes as a tar, and that as a layer.
func (d *Differ) writeLayer(ctx context.Context, c *changes) (*layer.Result, error) {
	var res *layer.Result
	err := piped(ctx, c.writeTar, func(ctx context.Context, r io.Reader) error {
		var err error
		res, err = layer.Write(ctx, d.node, r, layer.WriteOptions{})
		return err
	})
	return res, err
}

// publish writes a layer root to containerd's content store.
func (d *Differ) publish(ctx context.Context, desc ocispec.Descriptor, block []byte, config *diff.Config) error {
	set := maps.Clone(config.Labels)
	if set == nil {
		set = make(map[string]string)
	}
	set[labels.LabelUncompressed] = desc.Digest.String()
	ref := config.Reference
	if ref == "" {
		ref = pinPrefix + desc.Digest.String()
	} else if err := d.content.Abort(ctx, ref); err != nil && !errdefs.IsNotFound(err) {
		// What an earlier attempt has left under this name is no part of this one.
		return fmt.Errorf("end upload %q: %w", ref, err)
	}
	err := content.WriteBlob(ctx, d.content, ref, bytes.NewReader(block), desc, content.WithLabels(set))
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	// A blob that was there already has none of the labels.
	var fields []string
	for _, key := range slices.Sorted(maps.Keys(set)) {
		fields = append(fields, "labels."+key)
	}
	_, err = d.content.Update(ctx, content.Info{Digest: desc.Digest, Labels: set}, fields...)
	return err
}

// changes are what a merged tree has that a lower one has not, and the other way round.
type changes struct {
	lower, merged string     // where they are mounted
	upper         string     // the directory that holds all changes; if empty, both trees are walked
	epoch         *time.Time // no time of the tar is later; nil for no limit
}

// writeTar writes the changes as containerd does: as a tar with whiteouts.
func (c *changes) writeTar(ctx context.Context, w io.Writer) error {
	if c.upper == "" {
		return archive.WriteDiff(ctx, w, c.lower, c.merged, archive.WithSourceDateEpoch(c.epoch))
	}
	var opts []archive.ChangeWriterOpt
	if c.epoch != nil {
		opts = append(opts, archive.WithModTimeUpperBound(*c.epoch))
	}
	tar := archive.NewChangeWriter(w, c.merged, opts...)
	if err := c.walk(ctx, tar.HandleChange); err != nil {
		return fmt.Errorf("read changes in %s: %w", c.upper, err)
	}
	return tar.Close()
}
