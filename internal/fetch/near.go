package fetch

import (
	"context"
	"iter"
	"time"

	"github.com/hinshun/ipcs/ipfs"
)

// Who reads many small files one after the other waits for a round trip each. Where that is long,
// files beside the one that is read come with it: programs read packages, which are directories.
const (
	// farAway is how long small reads wait when the source is far away, farReads of the last
	// knownReads ones. That a link is busy makes some wait, not nearly all.
	farAway              = 8 * time.Millisecond
	farReads, knownReads = 6, 8
	// smallRead is the size of files that are small.
	smallRead = 64 << 10
	// maxNearFiles and maxNearBytes bound what comes with one read, and maxNear for how many
	// reads it does at a time.
	maxNearFiles = 128
	maxNearBytes = ipfs.LeafSize
	maxNear      = 8
)

// distance knows from the last small reads how far away the source is.
type distance struct {
	slow [knownReads]bool
	next int
}

func (d *distance) add(wait time.Duration) {
	d.slow[d.next] = wait >= farAway
	d.next = (d.next + 1) % knownReads
}

func (d *distance) far() bool {
	n := 0
	for _, slow := range d.slow {
		if slow {
			n++
		}
	}
	return n >= farReads
}

// SetNeighbours says which files are beside one, the likeliest to be read next first. It is called
// before the first read.
func (f *Fetcher) SetNeighbours(of func(ipfs.File) iter.Seq[ipfs.File]) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.neighbours = of
}

// nearLocked begins to get the neighbours of a file that is demanded, if the source is far away.
// Of ctx only the values count.
func (f *Fetcher) nearLocked(ctx context.Context, file ipfs.File) {
	if f.neighbours == nil || file.Size > smallRead || f.near >= maxNear || !f.distance.far() {
		return
	}
	f.near++
	ctx = context.WithoutCancel(ctx)
	f.wg.Go(func() {
		if err := f.Prefetch(ctx, nearest(f.neighbours(file)), ahead); err != nil {
			f.log.Debug("cannot get the files beside one", "cid", file.Cid.String(), "err", err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.near--
	})
}

// nearest yields the small ones of the first files.
func nearest(files iter.Seq[ipfs.File]) iter.Seq[ipfs.File] {
	return func(yield func(ipfs.File) bool) {
		var n int
		var bytes int64
		for file := range files {
			if file.Size > smallRead {
				continue
			}
			n, bytes = n+1, bytes+file.Size
			if n > maxNearFiles || bytes > maxNearBytes || !yield(file) {
				return
			}
		}
	}
}
