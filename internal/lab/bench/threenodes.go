package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// sources is how many nodes share the blocks of an image.
const sources = 3

// wholeReaders is how many files are read at once where all are read.
const wholeReaders = 8

// metricLocal is the time until all content is on the consumer's disk.
var metricLocal = result.Metric{Name: "local", Unit: "s", Better: result.Lower}

// threeNodes is the comparison that ipcs was introduced with in 2019.
func threeNodes() Scenario {
	s := Scenario{
		Name:  "three-nodes",
		Title: "Three nodes against a registry",
		About: "The comparison that ipcs was introduced with in 2019: three nodes that each have about a third of an " +
			"image, against one registry. While the image is converted, each block (leaves, dag-pb nodes, indexes and " +
			"the image record alike) goes to one of three machines by the hash in its CID, and nobody else has it. The " +
			"consumer's node knows those three. Layers in gzip or zstd, and all manifests, come from a registry on one " +
			"machine. All links carry the same, so that the consumer's own is the limit for every system; or that of the consumer " +
			"three times as much, so that it is not. `local` is " +
			"the time from the start of `ctr image pull` until all content of the image is on the consumer's disk. Where " +
			"layers are downloaded whole that is the end of the pull; for ipcs the image is pulled, and then " +
			"`ipcs-snapshotter fetch` brings all files. " + allContent + " New folders and a dropped page cache in " +
			"every run; containerd and daemon are up before the clock starts, and the daemon has dialled the three. " +
			"`received` is what came over the consumer's link, `cpu` what its containerd and daemon used on processors. " +
			bothEnds + " " +
			"The slices are of so many MB of gzip.",
		Systems: []string{"overlayfs", "overlayfs-zstd", "ipcs-fetch"},
		Main:    []string{metricLocal.Name, metricReceived.Name},
		Measure: measureThreeNodes,
	}
	slow, fast := Link{Mbit: 200}, Link{Mbit: 1000}
	far, wide := Link{Mbit: 1000, RTT: 20 * time.Millisecond}, Link{Mbit: 200, Wide: true}
	s.Cases = []Case{
		{Name: "slice-3", Image: "slice-3", Links: []Link{slow, wide, fast, far}, Rounds: 5},
		{Name: "slice-25", Image: "slice-25", Links: []Link{slow, wide, fast, far}, Rounds: 5, Quick: 2},
		{Name: "slice-30", Image: "slice-30", Links: []Link{slow, wide, fast, far}, Rounds: 5},
		{Name: "golang", Image: "golang", Links: []Link{slow, wide, fast, far}, Rounds: 3},
		{Name: "torch", Image: "torch", Links: []Link{wide, fast}, Rounds: 3},
	}
	return s
}

// measureThreeNodes spreads the image while it is published, and then pulls all of it.
func measureThreeNodes(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, err := r.site(ctx, l)
		if err != nil {
			return err
		}
		if err := site.Spread(ctx, l, sources); err != nil {
			return err
		}
		published, err := publishAt(ctx, r, site, r.Image)
		if err != nil {
			return err
		}
		return r.consume(ctx, l, site, published, func(t trial) error {
			return t.whole(ctx, func(*system.Host, consumption) error { return nil })
		})
	})
}

// arrival is how all content of an image came to a host.
type arrival struct {
	whole
	local time.Duration // from the start of the pull
}

// pullWhole pulls an image, mounts it, and reads every file.
func pullWhole(ctx context.Context, h *system.Host, ref string, readers int) (got arrival, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, longestRun, fmt.Errorf("it did not end within %v", longestRun))
	defer cancel()
	pull := h.Pull(ctx, ref)
	start := time.Now()
	if _, err := lab.Output(pull); err != nil {
		return got, errors.Join(err, context.Cause(ctx))
	}
	view, err := h.View(ctx, ref)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, view.Close(ctx)) }()
	if got.whole, err = readWhole(ctx, view.Root, readers); err != nil {
		return got, errors.Join(err, context.Cause(ctx))
	}
	got.local = time.Since(start)
	return got, nil
}
