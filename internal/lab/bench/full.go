package bench

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// allContent says what it means that all content is local, where that is measured.
const allContent = "All content is all that is in the layers where these are downloaded whole; for ipcs it is every " +
	"file that a container can read: what an upper layer hides, and what would be needed to make the layers' tars again, " +
	"is not fetched. containerd has synced the blobs that it downloaded to the disk by then, though not what it " +
	"unpacked; ipcs syncs what it fetched within ten seconds, in the background. Afterwards the page cache is dropped " +
	"and everything read again, and the run fails if ipcs fetches anything for that."

// full is what whoever wants the whole image waits for.
func full() Scenario {
	slow, fast := Link{Mbit: 200}, Link{Mbit: 1000}
	return Scenario{
		Name:  "full-content",
		Title: "All content local",
		About: "From the start of `ctr image pull` until all content of the image is on the machine's disk, `local`, on a " +
			"machine that has nothing of it. Where layers are downloaded whole that is the end of the pull. Where content " +
			"comes when it is read, the image is pulled and mounted, and every file read, with eight readers at once, which is " +
			"how to get all content soon. (stargz fetches in the background besides, as it does by itself.) `ipcs-fill` is how " +
			"it comes by itself: the image is pulled and a container made that reads nothing, and `local` is when the daemon " +
			"says that all is here, a second of waiting for readers included; `ipcs-fetch` is how to have it before there is a container: " +
			"`ipcs-snapshotter fetch` after the pull. " + allContent + " " +
			"`received` is what came over the machine's link, `cpu` what containerd and the system's daemons used on " +
			"processors, `daemon-cpu` the daemons alone, `peak` the most memory that the daemons held, " +
			"`disk` what all their folders take in the end, compressed layers that containerd keeps among it. " + bothEnds,
		Systems: []string{"overlayfs", "overlayfs-zstd", "erofs", "ipcs", "ipcs-fill", "ipcs-fetch", "stargz"},
		Quick:   []string{"overlayfs", "ipcs"},
		Cases: []Case{
			{Name: "python", Image: "debian", Links: []Link{fast, slow}, Rounds: 5, Quick: 1, QuickLink: slow},
			{Name: "golang", Image: "golang", Links: []Link{fast}, Rounds: 3},
			// What readers bring is measured with the smaller images.
			{Name: "torch", Image: "torch", Links: []Link{fast}, Rounds: 3,
				Only: []string{"overlayfs", "overlayfs-zstd", "erofs", "ipcs-fill", "ipcs-fetch", "stargz"}},
		},
		Main:    []string{metricLocal.Name, metricReceived.Name, metricDisk.Name},
		Measure: measureFull,
	}
}

// measureFull publishes the image, and brings all of it to new hosts.
func measureFull(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, published, err := publish(ctx, r, l, r.Image)
		if err != nil {
			return err
		}
		return r.consume(ctx, l, site, published, func(t trial) error { return t.full(ctx) })
	})
}

// full measures one host, and what it has on its disk in the end.
func (t trial) full(ctx context.Context) error {
	return t.whole(ctx, func(h *system.Host, took consumption) error {
		syscall.Sync() // blocks are given to files when these are written back
		disk, err := diskUsage(ctx, h.Folders...)
		if err != nil {
			return err
		}
		t.log("on disk %7.1f MB", float64(disk)/1e6)
		t.record(metricDisk, float64(disk))
		if took.peak > 0 {
			t.record(metricDaemon, took.daemonCPU.Seconds())
			t.record(metricPeak, float64(took.peak))
		}
		return nil
	})
}

// whole measures how all content of an image comes to a new host. At the end, when
// all of it is there, it calls then.
func (t trial) whole(ctx context.Context, then func(h *system.Host, took consumption) error) (err error) {
	h, err := t.host(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	if err := freshCaches(); err != nil {
		return err
	}
	costs, err := newCosts(t.site, h)
	if err != nil {
		return err
	}
	local, err := pullAll(ctx, h, t.image.Ref, wholeReaders)
	if err != nil {
		return fmt.Errorf("%w%s", err, h.Tail())
	}
	took, err := costs.hosts[0].read()
	if err != nil {
		return err
	}
	if err := costs.record(t.Run, t.round, t.system.Name()); err != nil {
		return err
	}
	if err := allHere(ctx, h, t.image.Ref); err != nil {
		return err
	}
	t.log("all of it local after %6.2f s, received %7.1f MB", local.Seconds(), float64(took.received)/1e6)
	t.record(metricLocal, local.Seconds())
	t.record(metricReceived, float64(took.received))
	t.record(metricCPU, took.cpu.Seconds())
	return then(h, took)
}

// pullAll brings all content of an image to the host's disk, and returns what that took.
// The readers are those of a host that fetches what is read.
func pullAll(ctx context.Context, h *system.Host, ref string, readers int) (time.Duration, error) {
	if h.Lazy && !h.Fills && !h.Fetches {
		got, err := pullWhole(ctx, h, ref, readers)
		return got.local, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, longestRun, fmt.Errorf("it did not end within %v", longestRun))
	defer cancel()
	pull := h.Pull(ctx, ref)
	start := time.Now()
	_, err := lab.Output(pull)
	if err == nil && h.Fills {
		return filled(ctx, h, ref, start)
	}
	if err == nil && h.Fetches {
		err = h.Daemon.Fetch(ctx, ref)
	}
	if err != nil {
		return 0, errors.Join(err, context.Cause(ctx))
	}
	return time.Since(start), nil
}

// filled makes what a container of an image would run on, and returns the time from start
// until the daemon says that all files are here.
func filled(ctx context.Context, h *system.Host, ref string, start time.Time) (took time.Duration, err error) {
	view, err := h.Writable(ctx, ref)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, view.Close(ctx)) }()
	if err := h.Daemon.Filled(ctx); err != nil {
		return 0, errors.Join(err, context.Cause(ctx))
	}
	return time.Since(start), nil
}
