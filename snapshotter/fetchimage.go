//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/mediatype"
)

// fetchReport is how often FetchImage says how far it is.
const fetchReport = 200 * time.Millisecond

// FetchProgress says how far FetchImage is: of the files that the image shows, what was here
// when it began, what has come since, and all.
type FetchProgress struct {
	Image                  digest.Digest // chainID of the topmost ipcs layer
	Here, Fetched, Files   int
	HereBytes              int64
	FetchedBytes, AllBytes int64
}

// FetchImage returns when all files of an image are on this machine: behind what containers
// read and are likely to read, but before what is fetched in the background. The name is as
// for Profile; the image must have been pulled. It tells report now and then, and at the
// end, how far it is, from one goroutine at a time. The error is fetch.ErrIncomplete, wrapped,
// if some files could not be had, or fetch.ErrNoRoom if the limit of the store has no room.
func (s *Snapshotter) FetchImage(ctx context.Context, name string, report func(FetchProgress)) error {
	im, err := s.imageNamed(ctx, name)
	if err != nil {
		return err
	}
	s.locateImage(ctx, im)
	files, err := s.allFiles(ctx, im)
	if err != nil {
		return err
	}
	p := FetchProgress{Image: im.chain}
	var missing []ipfs.File
	for f := range distinctFiles(files) {
		p.Files++
		p.AllBytes += f.Size
		if !s.prefetch.Has(f) {
			missing = append(missing, f)
			continue
		}
		p.Here++
		p.HereBytes += f.Size
	}
	done := make(chan error, 1)
	go func() {
		done <- s.prefetch.Prefetch(ctx, func(yield func(ipfs.File) bool) {
			for _, f := range missing {
				if !yield(f) {
					return
				}
			}
		}, fetch.Whole)
	}()
	tick := time.NewTicker(fetchReport)
	defer tick.Stop()
	left, over := missing, false
	for !over {
		select {
		case err = <-done:
			over = true
		case <-tick.C:
		}
		// They come nearly in this order: the first that is not here is how far it is.
		for len(left) > 0 && s.prefetch.Has(left[0]) {
			p.Fetched++
			p.FetchedBytes += left[0].Size
			left = left[1:]
		}
		report(p)
	}
	if err != nil {
		return fmt.Errorf("fetch all files of image %s: %w", im.chain, err)
	}
	return nil
}

// allFiles yields the files that an image shows, beginning anywhere.
func (s *Snapshotter) allFiles(ctx context.Context, im *imageFiles) (iter.Seq[ipfs.File], error) {
	if err := s.learn(ctx, run{roots: im.roots}); err != nil {
		return nil, err
	}
	for _, r := range im.runs {
		err := s.findShown(ctx, r)
		s.opener.forget(r.roots)
		if err != nil {
			return nil, err
		}
	}
	all := func(yield func(ipfs.File) bool) {
		for _, r := range im.runs {
			for f := range s.filesOf(r) {
				if !yield(f) {
					return
				}
			}
		}
	}
	n := 0
	for range all {
		n++
	}
	return rotated(all, rand.IntN(max(1, n))), nil
}

// rotated yields what seq does, from the nth on, and then what is before that. Machines that
// fetch one image at the same time begin at different places, and so have something for each
// other: else all would want the same of whoever has it, at the same time.
func rotated(seq iter.Seq[ipfs.File], n int) iter.Seq[ipfs.File] {
	return func(yield func(ipfs.File) bool) {
		i := 0
		for f := range seq {
			if i++; i > n && !yield(f) {
				return
			}
		}
		i = 0
		for f := range seq {
			if i++; i > n || !yield(f) {
				return
			}
		}
	}
}

// distinctFiles leaves out files that were there before.
func distinctFiles(files iter.Seq[ipfs.File]) iter.Seq[ipfs.File] {
	return func(yield func(ipfs.File) bool) {
		seen := make(map[cid.Cid]struct{})
		for f := range files {
			if _, ok := seen[f.Cid]; ok {
				continue
			}
			seen[f.Cid] = struct{}{}
			if !yield(f) {
				return
			}
		}
	}
}

// imageNamed returns the image whose chainID, or the digest of whose topmost ipcs layer, begins
// with name.
func (s *Snapshotter) imageNamed(ctx context.Context, name string) (*imageFiles, error) {
	digits := strings.TrimPrefix(name, digest.SHA256.String()+":")
	found := make(map[digest.Digest]string) // snapshots by chain
	var im *imageFiles
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		err := storage.WalkInfo(ctx, func(_ context.Context, info snapshots.Info) error {
			root, err := cid.Decode(info.Labels[labelRoot])
			if err != nil {
				return nil // an ordinary one
			}
			d, err := mediatype.LayerDigest(root)
			chain := digest.Digest(info.Labels[labelChain])
			if err == nil && (strings.HasPrefix(chain.Encoded(), digits) || strings.HasPrefix(d.Encoded(), digits)) {
				found[chain] = info.Name
			}
			return err
		})
		if err != nil || len(found) != 1 {
			return err
		}
		for _, snapshot := range found {
			links, err := lineage(ctx, snapshot)
			if err != nil {
				return err
			}
			im = imageOf(links)
		}
		return nil
	})
	switch {
	case err != nil && !errdefs.IsNotFound(err): // there was never a snapshot
		return nil, fmt.Errorf("look up image %.80q: %w", name, err)
	case len(found) > 1:
		return nil, fmt.Errorf("%d images begin with %q: give more digits: %w", len(found), name, errdefs.ErrInvalidArgument)
	case im == nil:
		return nil, fmt.Errorf("no snapshot is of image %.80q: pull it first: %w", name, errdefs.ErrNotFound)
	}
	return im, nil
}
