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

// wholeReaders is how many files are read at once where all are.
const wholeReaders = 8

// metricLocal is the time until all content is on the consumer's disk.
var metricLocal = result.Metric{Name: "local", Unit: "s", Better: result.Lower}

// threeNodes is the comparison that ipcs was introduced with in 2019.
func threeNodes() Scenario {
	s := Scenario{
		Name:  "three-nodes",
		Title: "Three nodes against a registry",
		About: "The comparison that ipcs was introduced with in 2019: three nodes that each have about a third of an " +
			"image, against one registry. While it is converted, each block (leaves, dag-pb nodes, indexes and the " +
			"image record alike) goes to one of three machines by the hash in its CID, and to no other; nobody else " +
			"has any. The consumer's node knows those three. Layers in gzip or zstd, and the manifests of both, come " +
			"from a registry on one machine. Every machine's link carries the same, so that the consumer's own is the " +
			"limit for all. `local` is the time from the start of `ctr image pull` until the image's root file " +
			"system is mounted and every file in it was read to its end, with eight readers at once: for ipcs that " +
			"is what brings all content to the disk. overlayfs has it there after the `pull`, and reads it back from " +
			"the page cache. New folders and a dropped page cache in every run; what serves has its disk in memory. " +
			"`received` is what came over the consumer's link, `cpu` what its containerd and daemon used.",
		Systems: []string{"overlayfs", "overlayfs-zstd", "ipcs"},
		Main:    []string{metricLocal.Name, metricReceived.Name},
		Measure: measureThreeNodes,
	}
	slow, fast := Link{Mbit: 200}, Link{Mbit: 1000}
	far := Link{Mbit: 1000, RTT: 20 * time.Millisecond}
	s.Cases = []Case{
		{Name: "3-MB", Image: "slice-3", Links: []Link{slow, fast}, Rounds: 5},
		{Name: "25-MB", Image: "slice-25", Links: []Link{slow, fast, far}, Rounds: 5, Quick: 2},
		{Name: "30-MB", Image: "slice-30", Links: []Link{slow, fast}, Rounds: 5},
		{Name: "300-MB", Image: "postgres", Links: []Link{slow, fast, far}, Rounds: 3},
		{Name: "1-GB", Image: "torch", Links: []Link{fast}, Rounds: 3},
	}
	return s
}

// measureThreeNodes spreads the image while it is published, and then pulls all of it.
func measureThreeNodes(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, err := system.NewSite(ctx, l, r.Layout)
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
		m, err := l.Machine(ctx, "consumer")
		if err != nil {
			return err
		}
		return r.EachLink(func() error {
			if err := errors.Join(site.SetRate(ctx, r.Link.Mbit), m.SetRate(ctx, r.Link.Mbit)); err != nil {
				return err
			}
			return r.Rotate(ctx, func(round int, s system.System) error {
				img, err := site.Delayed(ctx, m, published[s.Name()], r.Link.RTT)
				if err != nil {
					return err
				}
				return localOnce(ctx, r, m, round, s, img)
			})
		})
	})
}

// localOnce measures how all content of an image comes to a new host.
func localOnce(ctx context.Context, r *Run, m *lab.Machine, round int, s system.System, img *system.Image) (err error) {
	h, err := s.Start(ctx, m, fmt.Sprintf("%s-%d", s.Name(), round), system.Options{
		Peers: img.Peers, Registry: img.Registry(), Profile: r.Profile(s.Name(), round),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	if err := freshCaches(); err != nil {
		return err
	}
	received, err := m.Received()
	if err != nil {
		return err
	}
	used, err := h.Usage()
	if err != nil {
		return err
	}
	got, err := pullWhole(ctx, h, img.Ref, wholeReaders)
	if err != nil {
		return fmt.Errorf("%w%s", err, h.Tail())
	}
	after, err := m.Received()
	if err != nil {
		return err
	}
	usage, err := h.Usage()
	if err != nil {
		return err
	}
	r.Log("%-18s pulled after %6.2f s, all of it local after %6.2f s, received %7.1f MB, %d files of %.1f MB",
		s.Name(), got.pull.Seconds(), got.local.Seconds(), float64(after-received)/1e6, got.Files, float64(got.Bytes)/1e6)
	r.Record(round, s.Name(), metricLocal, got.local.Seconds())
	r.Record(round, s.Name(), metricPull, got.pull.Seconds())
	r.Record(round, s.Name(), metricReceived, float64(after-received))
	r.Record(round, s.Name(), metricCPU, (usage.CPU - used.CPU).Seconds())
	return nil
}

// arrival is how all content of an image came to a host.
type arrival struct {
	whole
	pull, local time.Duration // from the start of the pull
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
	got.pull = time.Since(start)
	view, err := h.Containerd.View(ctx, ref, h.Snapshotter)
	if err != nil {
		return got, err
	}
	defer func() { err = errors.Join(err, view.Close(context.WithoutCancel(ctx))) }()
	if got.whole, err = readWhole(ctx, view.Root, readers); err != nil {
		return got, errors.Join(err, context.Cause(ctx))
	}
	got.local = time.Since(start)
	return got, nil
}
