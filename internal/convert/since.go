package convert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/ipfs/go-cid"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/seed"
	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/mediatype"
)

// usedShare is how much of an earlier seed must be of use, as one in so many: all of it is kept for that, as long as the image.
const usedShare = 4

// ErrNoSeeds says that an image has no seeds.
var ErrNoSeeds = errors.New("it has no seeds")

// An earlier seed is one that was written with another image.
type earlier struct {
	layer.Seed
	table    *seed.Table
	prefixes map[uint64]int // number of a block that begins so
	size     int64          // of its blocks, but for what its layer is mounted by
	used     int64          // of those that the new image has, too
}

func newEarlier(s layer.Seed, t *seed.Table) *earlier {
	e := &earlier{Seed: s, table: t, prefixes: make(map[uint64]int, t.Len())}
	for n, prefix := range t.Prefixes() {
		e.prefixes[prefix] = n
	}
	for _, f := range t.Frames[:len(t.Frames)-1] { // what its layer is mounted by is no other's
		e.size += int64(f.Size)
	}
	return e
}

// has says whether a block is in the seed. The first bytes of its digest say it: whoever wrote the seed is whoever writes this image.
func (e *earlier) has(c cid.Cid) bool {
	prefix, ok := seed.Prefix(c)
	n, there := e.prefixes[prefix]
	if !ok || !there {
		return false
	}
	_, same := e.table.At(n, c)
	return same
}

// since returns the seeds of an earlier image that are of use to one that is being written, and has them in the target.
func (p *publisher) sinceSeeds(ctx context.Context, im *image) ([]*earlier, error) {
	if p.since == nil {
		return nil, nil
	}
	seeds, err := openEarlier(ctx, p.since, im.platform)
	if err != nil {
		return nil, fmt.Errorf("seeds of %s: %w", p.since, err)
	}
	if err := p.countUsed(ctx, im, seeds); err != nil {
		return nil, err
	}
	slices.SortStableFunc(seeds, func(a, b *earlier) int { return int(b.used - a.used) })
	seeds = slices.DeleteFunc(seeds, func(e *earlier) bool { return e.used < e.size/usedShare || e.used == 0 })
	seeds = seeds[:min(len(seeds), layer.MaxImageSeeds)]
	for _, e := range seeds {
		desc := ocispec.Descriptor{MediaType: mediatype.Seed, Digest: e.Digest, Size: e.Size}
		if err := p.copyBlob(ctx, p.since, desc); err != nil {
			return nil, fmt.Errorf("seed %s of %s: %w", e.Digest, p.since, err)
		}
	}
	return seeds, nil
}

// countUsed counts which of an image's leaves are in which seeds.
func (p *publisher) countUsed(ctx context.Context, im *image, seeds []*earlier) error {
	seen := map[cid.Cid]struct{}{}
	for _, l := range im.layers {
		opened, err := layer.OpenBlock(ctx, p.node, p.layers[l.key()].root)
		if err != nil {
			return err
		}
		for i := range opened.Index.Entries {
			e := &opened.Index.Entries[i]
			if !isContent(e) {
				continue
			}
			f := e.File()
			for j := range f.NumLeaves() {
				c := f.Leaf(j)
				if _, again := seen[c]; again {
					continue
				}
				seen[c] = struct{}{}
				for _, s := range seeds {
					if s.has(c) {
						s.used += int64(f.LeafLen(j))
						break
					}
				}
			}
		}
	}
	return nil
}

// openEarlier reads the tables of the seeds that an image of a platform has.
func openEarlier(ctx context.Context, src Source, platform ocispec.Platform) ([]*earlier, error) {
	record, err := seedsRecord(ctx, src, platform)
	if err != nil {
		return nil, err
	}
	codec, err := seed.NewCodec()
	if err != nil {
		return nil, err
	}
	var out []*earlier
	for _, s := range record.AllSeeds() {
		head, err := tail(ctx, src, ocispec.Descriptor{MediaType: mediatype.Seed, Digest: s.Digest, Size: s.Size}, s.Head)
		if err != nil {
			return nil, fmt.Errorf("seed %s: %w", s.Digest, err)
		}
		h, err := seed.ParseHead(codec, head, s.Head)
		if err != nil {
			return nil, fmt.Errorf("seed %s: %w", s.Digest, err)
		}
		out = append(out, newEarlier(s, h.Table))
	}
	return out, nil
}

// seedsRecord reads the image record that stands beside the seeds of an image.
func seedsRecord(ctx context.Context, src Source, platform ocispec.Platform) (*layer.Image, error) {
	desc, err := src.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	data, err := fetchVerified(ctx, src, desc, "index", maxManifest)
	if err != nil {
		return nil, err
	}
	var index struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if !images.IsIndexType(index.MediaType) {
		return nil, ErrNoSeeds
	}
	list, err := decodeList[ocispec.Descriptor](index.Manifests, maxInIndex)
	if err != nil {
		return nil, err
	}
	match := platforms.OnlyStrict(withoutFeature(platform))
	for _, m := range list {
		if m.ArtifactType != mediatype.Seeds {
			continue
		}
		of := slices.IndexFunc(list, func(d ocispec.Descriptor) bool {
			return d.Digest.String() == m.Annotations[mediatype.AnnotationSeedsOf]
		})
		if of < 0 || list[of].Platform != nil && !match.Match(withoutFeature(*list[of].Platform)) {
			continue
		}
		return recordOf(ctx, src, m)
	}
	return nil, fmt.Errorf("of an image for %s, %w", platforms.FormatAll(platform), ErrNoSeeds)
}

// recordOf reads the image record that a manifest of seeds lists first.
func recordOf(ctx context.Context, src Source, desc ocispec.Descriptor) (*layer.Image, error) {
	data, err := fetchVerified(ctx, src, desc, "manifest of seeds", maxManifest)
	if err != nil {
		return nil, err
	}
	var manifest struct {
		Layers json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(data, &manifest); err != nil {
		return nil, fmt.Errorf("manifest of seeds: %w: %w", ErrCorrupt, err)
	}
	layers, err := decodeList[ocispec.Descriptor](manifest.Layers, maxInIndex)
	if err != nil || len(layers) == 0 || layers[0].MediaType != mediatype.Record {
		return nil, fmt.Errorf("manifest of seeds: %w: it has no image record (%w)", ErrCorrupt, err)
	}
	record, err := fetchVerified(ctx, src, layers[0], "image record", layer.MaxImageRecord)
	if err != nil {
		return nil, err
	}
	return layer.DecodeImage(record)
}

// tail reads a blob from off to its end.
func tail(ctx context.Context, src Source, desc ocispec.Descriptor, off int64) ([]byte, error) {
	if desc.Size-off > seed.MaxHead {
		return nil, seed.ErrTooLarge
	}
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	if s, ok := rc.(io.Seeker); ok {
		_, err = s.Seek(off, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, rc, off)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(rc, desc.Size-off))
}
