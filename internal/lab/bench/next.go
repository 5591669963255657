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

// metricReceivedWhole is what came over the link until all content was local.
var metricReceivedWhole = result.Metric{Name: "received-whole", Unit: "B", Better: result.Lower}

// next is the update: the second image has much of the first, in other layers.
func next() Scenario {
	s := Scenario{
		Name:  "next-image",
		Title: "The next version of an image",
		About: "All content of one image is on the machine's disk when its next version is pulled and started: Debian as it " +
			"was released and with what was mended since, and a Go toolchain and the one before it on the same lower layers. " +
			"`ready` is the time from the start of `ctr image pull` of the second image to the end of a command in a container, " +
			"`received` what came over the machine's link until then. Then `ipcs-snapshotter fetch` brings " +
			"all other content of it to the disk where content comes when it is read: `local` is the time from the " +
			"start of the pull to the end of that, the container's included, and `received-whole` what came until then. Where " +
			"layers are downloaded whole, `local` is the end of the pull. " + allContent + " The first image came over a link " +
			"without a limit, in the same way; the page cache is dropped after it. stargz takes no part: it shares whole " +
			"layers alone, so that a changed layer costs it what it costs in a cold start. " + bothEnds + " They are of all content.",
		Systems: []string{"overlayfs", "overlayfs-zstd", "ipcs-fetch"},
		Cases: []Case{
			{Name: "debian", Before: "base", Image: "base-updated", Command: `sh -c true`, Rounds: 5},
			{Name: "golang", Before: "golang-previous", Image: "golang", Command: goBuild, Rounds: 3},
		},
		Main:    []string{metricReady.Name, metricLocal.Name},
		Measure: measureNext,
	}
	for i := range s.Cases {
		s.Cases[i].Links = []Link{{Mbit: 200}}
	}
	return s
}

// measureNext publishes both images, and has new hosts pull one after the other.
func measureNext(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, before, err := publish(ctx, r, l, r.Before)
		if err != nil {
			return err
		}
		published, err := publishAt(ctx, r, site, r.Image)
		if err != nil {
			return err
		}
		return r.consume(ctx, l, site, published, func(t trial) error {
			return t.next(ctx, before[t.system.Name()])
		})
	})
}

// next measures one host.
func (t trial) next(ctx context.Context, before *system.Image) (err error) {
	if err := errors.Join(t.site.SetRate(ctx, Unlimited), t.consumer.SetRate(ctx, Unlimited)); err != nil {
		return err
	}
	h, err := t.host(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	prepared, err := pullAll(ctx, h, before.Ref, wholeReaders)
	if err != nil {
		return fmt.Errorf("the image before: %w%s", err, h.Tail())
	}
	if err := errors.Join(
		allHere(ctx, h, before.Ref), t.site.SetRate(ctx, t.Link.Mbit), t.consumer.SetRate(ctx, t.Link.Mbit), freshCaches(),
	); err != nil {
		return err
	}
	costs, err := newCosts(t.site, h)
	if err != nil {
		return err
	}
	got, err := pullNext(ctx, h, t.image.Ref, t.Command)
	if err != nil {
		return fmt.Errorf("%w%s", err, h.Tail())
	}
	if err := costs.record(t.Run, t.round, t.system.Name()); err != nil {
		return err
	}
	if err := allHere(ctx, h, t.image.Ref); err != nil {
		return err
	}
	t.log("ready after %6.2f s, received %7.1f MB; all of it local after %6.2f s, received %7.1f MB (the image before took %.2f s)",
		got.ready.Seconds(), float64(got.received)/1e6, got.local.Seconds(), float64(got.receivedWhole)/1e6, prepared.Seconds())
	t.record(metricReady, got.ready.Seconds())
	t.record(metricReceived, float64(got.received))
	t.record(metricLocal, got.local.Seconds())
	t.record(metricReceivedWhole, float64(got.receivedWhole))
	return nil
}

// An update is how the next image came to a host.
type update struct {
	ready, local            time.Duration // from the start of the pull
	received, receivedWhole int64
}

// pullNext pulls an image, runs the command in it, and then brings all content of it to
// the host's disk.
func pullNext(ctx context.Context, h *system.Host, ref, command string) (update, error) {
	var got update
	meter, err := newMeter(h)
	if err != nil {
		return got, err
	}
	start := time.Now()
	if got.local, got.ready, err = pullAndRun(ctx, h, ref, command); err != nil {
		return got, err
	}
	took, err := meter.read()
	if err != nil {
		return got, err
	}
	got.received = took.received
	if h.Lazy {
		if err := h.Daemon.Fetch(ctx, ref); err != nil {
			return got, err
		}
		got.local = time.Since(start)
	}
	took, err = meter.read()
	got.receivedWhole = took.received
	return got, err
}
