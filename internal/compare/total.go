package compare

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
)

// report adds all up.
func (c *comparison) report(ctx context.Context) (*Report, error) {
	t := newTally(len(c.subjects))
	number := map[*subject]int{}
	for i, s := range c.subjects {
		number[s] = i
	}
	sums := map[string]layerSum{}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(c.Workers)
	for _, u := range c.units() {
		group.Go(func() error {
			if err := gctx.Err(); err != nil {
				return context.Cause(gctx)
			}
			s, err := c.load(gctx, u)
			if err != nil {
				return err
			}
			uses := map[int]int{}
			for _, user := range u.users {
				for _, l := range user.look.Layers {
					if key(l) == key(u.seen) {
						uses[number[user]]++
					}
				}
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			sum, err := t.add(s, uses)
			sums[key(u.seen)] = sum
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return c.finish(ctx, t, sums)
}

// load returns what is known of a layer.
func (c *comparison) load(ctx context.Context, u *unit) (*scan, error) {
	if u.seen.Root == "" {
		if s := c.Cache.load(u.seen); s != nil {
			return s, nil
		}
	}
	s, err := c.read(ctx, u, func(int64) {}) // somebody has cleared the cache
	if err != nil {
		err = fmt.Errorf("%s: layer %s: %w", u.users[0].ref, firstOf(u.seen.Desc.Digest, u.seen.Root), err)
	}
	return s, err
}

func (c *comparison) finish(ctx context.Context, t *tally, sums map[string]layerSum) (r *Report, err error) {
	r = &Report{Schema: Schema, Levels: t.levels(), Touched: t.touched(), Failed: c.failed}
	if r.Pairs, err = t.pairs(ctx, r.Levels); err != nil {
		return nil, err
	}
	r.Shared, r.Unshared = t.filesOf(maxFiles)
	chains := map[string]bool{}
	for i, s := range c.subjects {
		im := Image{Ref: s.ref, Digest: s.look.Digest, Platform: s.look.Platform, Layers: []Layer{}, Files: t.files[i]}
		chain := ""
		for _, l := range s.look.Layers {
			sum := sums[key(l)]
			im.IPCS = im.IPCS || l.Root != ""
			im.Layers = append(im.Layers, newLayer(sum))
			chain += " " + sum.identity().String()
			if !chains[chain] {
				chains[chain] = true
				r.Disk.Unpacked += sum.disk
				r.Disk.Indexes += sum.entries * erofsEntry
			}
		}
		for _, l := range r.Levels {
			if own := l.Images[i]; l.Name == LevelFile {
				im.Copies = Amount{im.Files.Count - own.Unique.Count - own.Shared.Count, im.Files.Bytes - own.Unique.Bytes - own.Shared.Bytes}
			}
		}
		r.Images = append(r.Images, im)
	}
	for _, x := range t.indexes {
		r.Disk.Indexes += (x.bytes + blockSize - 1) / blockSize * blockSize
	}
	for _, b := range t.blobs {
		r.Disk.Blobs += (max(b.size, 0) + blockSize - 1) / blockSize * blockSize
	}
	for _, content := range t.contents {
		if content.files != 0 {
			r.Disk.Files += (content.size + blockSize - 1) / blockSize * blockSize
		}
	}
	return r, nil
}

func newLayer(s layerSum) Layer {
	l := Layer{Digest: s.Blob, DiffID: s.DiffID, Blob: s.BlobSize, Tar: s.Tar, Files: s.files}
	if l.Digest == "" {
		l.Blob = unknownAmount
	}
	return l
}

// Names are the references of the images of a report, as short as they can be told apart: what all begin with, up to a slash, is left out. Of several platforms of one
// image, each has its own behind it.
func (r *Report) Names() []string {
	names, times := make([]string, len(r.Images)), map[string]int{}
	common := ""
	for i, im := range r.Images {
		names[i] = im.Ref
		times[im.Ref]++
		prefix := im.Ref[:strings.LastIndex(im.Ref, "/")+1]
		if i == 0 {
			common = prefix
		}
		for !strings.HasPrefix(prefix, common) {
			common = common[:strings.LastIndex(strings.TrimSuffix(common, "/"), "/")+1]
		}
	}
	for i, im := range r.Images {
		names[i] = strings.TrimPrefix(names[i], common)
		if times[im.Ref] > 1 {
			names[i] += " (" + im.Platform + ")"
		}
	}
	return names
}
