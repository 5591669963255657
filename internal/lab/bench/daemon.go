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

// idlePeriod is how long a daemon is watched, and idleContainers how many containers are
// there in the end.
const (
	idlePeriod     = 5 * time.Second
	idleContainers = 10
)

// metricIdle is a daemon's part of one core.
var metricIdle = result.Metric{Name: "idle-cpu", Unit: "%", Better: result.Lower}

// idle is about what a daemon takes when nobody asks it for anything.
func idle() Scenario {
	return Scenario{
		Name:  "daemon",
		Title: "A daemon that has nothing to do",
		About: fmt.Sprintf("What a system's daemon takes while nobody reads: `resident` is its memory and `idle-cpu` the time "+
			"that it spends on processors in %.0f seconds, as a share of one core, after each of these steps on one new host, "+
			"whose links have no limit: `started`, and nothing was pulled; `mounted`, the image golang pulled and mounted "+
			"once; `listed`, `find -ls` over the mount; `read`, every file read to its end, with eight readers at once; "+
			"`containers`, %d containers of the image that run `sleep`. The seconds begin when the step has ended, so that "+
			"what a daemon fetches or writes in the background counts, and the kernel counts hundredths. overlayfs and erofs have no daemon, and "+
			"ratios are to ipcs.", idlePeriod.Seconds(), idleContainers),
		Systems: []string{"ipcs", "stargz"},
		Cases:   []Case{{Name: "all", Image: "golang", Rounds: 2}},
		Main:    []string{metricResident.Name, metricIdle.Name},
		Measure: measureIdle,
	}
}

// measureIdle records under the names of the steps.
func measureIdle(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		_, published, err := publish(ctx, r, l, r.Image)
		if err != nil {
			return err
		}
		m, err := l.Machine(ctx, "host")
		if err != nil {
			return err
		}
		return r.Rotate(ctx, func(round int, s system.System) error {
			return idleOnce(ctx, r, m, round, s, published[s.Name()])
		})
	})
}

// idleOnce watches the daemon of one host after each step.
func idleOnce(ctx context.Context, r *Run, m *lab.Machine, round int, s system.System, img *system.Image) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, longestRun, fmt.Errorf("it did not end within %v", longestRun))
	defer cancel()
	r.Name = "started"
	h, err := s.Start(ctx, m, fmt.Sprintf("%s-%d", s.Name(), round), system.Options{
		Peers: img.Peers, Registry: img.Registry(), Profile: r.Profile(s.Name(), round),
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	if err := watch(ctx, r, round, s, h); err != nil {
		return err
	}
	r.Name = "mounted"
	if _, err := lab.Output(h.Pull(ctx, img.Ref)); err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	view, err := h.View(ctx, img.Ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close(ctx)) }()
	steps := []struct {
		name string
		do   func() error
	}{
		{"mounted", func() error { return nil }},
		{"listed", func() error { return find(ctx, tree{root: view.Root}) }},
		{"read", func() error {
			_, err := readWhole(ctx, view.Root, wholeReaders)
			return err
		}},
		{"containers", func() error { return sleepers(ctx, h, img.Ref) }},
	}
	for _, step := range steps {
		r.Name = step.name
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w%s", step.name, errors.Join(err, context.Cause(ctx)), h.Tail())
		}
		if err := watch(ctx, r, round, s, h); err != nil {
			return err
		}
	}
	return nil
}

// sleepers starts containers that do nothing. They end with the host.
func sleepers(ctx context.Context, h *system.Host, ref string) error {
	for i := range idleContainers {
		id := fmt.Sprintf("%s-%d", containerID(h), i)
		run := h.Containerd.Ctr(ctx, "run", "--detach", "--snapshotter", h.Snapshotter, ref, id, "sleep", "1d")
		if _, err := lab.Output(run); err != nil {
			return err
		}
	}
	return nil
}

// watch records what the daemon of a host takes from now on, and what it holds then.
func watch(ctx context.Context, r *Run, round int, s system.System, h *system.Host) error {
	before, err := h.Usage()
	if err != nil {
		return err
	}
	start, timer := time.Now(), time.NewTimer(idlePeriod)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	}
	after, err := h.Usage()
	if err != nil {
		return err
	}
	share := 100 * (after.DaemonCPU - before.DaemonCPU).Seconds() / time.Since(start).Seconds()
	r.Log("%-18s %-10s %6.1f MB resident, %5.2f %% of a core", s.Name(), r.Name, float64(after.Resident)/1e6, share)
	r.Record(round, s.Name(), metricResident, float64(after.Resident))
	r.Record(round, s.Name(), metricIdle, share)
	return nil
}
