package convert

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// osFeature is the feature in the platform of an ipcs image that stands beside its original: so each host takes what
// it can run (spec/image.md, "One tag for all").
const osFeature = "ipcs"

// withFeature returns the platform of who runs ipcs images.
func withFeature(p ocispec.Platform) ocispec.Platform {
	if !hasFeature(&p) {
		p.OSFeatures = append(slices.Clone(p.OSFeatures), osFeature)
		slices.Sort(p.OSFeatures)
	}
	return p
}

func hasFeature(p *ocispec.Platform) bool {
	return p != nil && slices.Contains(p.OSFeatures, osFeature)
}

// withoutFeature returns the platform of the original.
func withoutFeature(p ocispec.Platform) ocispec.Platform {
	p.OSFeatures = slices.DeleteFunc(slices.Clone(p.OSFeatures), func(f string) bool { return f == osFeature })
	return p
}

// A copier copies a blob from a source in a better way than through this process.
type copier interface {
	Copy(ctx context.Context, src Source, desc ocispec.Descriptor) error
}

// pushOriginal copies an original to the target as it is.
func (p *publisher) pushOriginal(ctx context.Context, im *image) (document, error) {
	done := map[digest.Digest]bool{}
	for _, l := range im.layers {
		if done[l.desc.Digest] {
			continue
		}
		done[l.desc.Digest] = true
		if err := p.copyBlob(ctx, p.src, l.desc); err != nil {
			return document{}, fmt.Errorf("copy layer %s of the original: %w", l.desc.Digest, err)
		}
	}
	if err := p.dst.Push(ctx, bare(im.configDesc), im.configData); err != nil {
		return document{}, fmt.Errorf("config of the original: %w", err)
	}
	doc := document{desc: bare(im.desc), data: im.data}
	doc.desc.Platform, doc.desc.Annotations = &im.platform, im.desc.Annotations
	return doc, nil
}

// copyBlob copies a blob to the target.
func (p *publisher) copyBlob(ctx context.Context, src Source, desc ocispec.Descriptor) error {
	if c, ok := p.dst.(copier); ok {
		return c.Copy(ctx, src, bare(desc))
	}
	got, err := p.dst.PushStream(ctx, desc.MediaType, func(w io.Writer) error {
		return readChecked(ctx, src, desc, func(blob io.Reader) error {
			_, err := io.Copy(w, blob)
			return err
		})
	})
	if err == nil && got.Digest != desc.Digest {
		err = fmt.Errorf("%w: it was stored as %s", ErrCorrupt, got.Digest)
	}
	return err
}

// readChecked has read read a blob of a source, which fails at its end if it is another.
func readChecked(ctx context.Context, src Source, desc ocispec.Descriptor, read func(io.Reader) error) error {
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	blob, err := newVerifier(sourceReader{rc}, desc, func(int64) {})
	if err != nil {
		return err
	}
	return read(blob)
}

// pick leaves those manifests of an index that are to be read: where originals stand beside ipcs images, either these or
// those. What it leaves out of ipcs images is in w.originals.
func (w *walk) pick() {
	beside := func(d ocispec.Descriptor) bool {
		return !hasFeature(d.Platform) && d.Platform != nil && slices.ContainsFunc(w.manifests, func(m ocispec.Descriptor) bool {
			return hasFeature(m.Platform) && platforms.FormatAll(withoutFeature(*m.Platform)) == platforms.FormatAll(*d.Platform)
		})
	}
	var kept []ocispec.Descriptor
	for _, d := range w.manifests {
		switch {
		case w.lazy && beside(d):
			w.originals = append(w.originals, d)
		case !w.lazy && hasFeature(d.Platform):
			w.progress.Note(fmt.Sprintf("manifest %.80q is left out: it is an ipcs image already", d.Digest))
		default:
			kept = append(kept, d)
		}
	}
	w.manifests = kept
}

// beside returns the ipcs images of the same platform as an original that stands beside them.
func beside(ims []*image, original ocispec.Descriptor) (digests []digest.Digest) {
	for _, im := range ims {
		if hasFeature(&im.platform) && platforms.FormatAll(withoutFeature(im.platform)) == platforms.FormatAll(*original.Platform) {
			digests = append(digests, im.desc.Digest)
		}
	}
	return digests
}
