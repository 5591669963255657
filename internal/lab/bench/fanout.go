package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// The metrics of many consumers at once.
var (
	metricSoonest = result.Metric{Name: "first", Unit: "s", Better: result.Lower}
	metricSent    = result.Metric{Name: "sent", Unit: "B", Better: result.Lower}
	metricBusy    = result.Metric{Name: "busy", Unit: "%"}
)

// fanOut is one source and many consumers.
func fanOut() Scenario {
	s := Scenario{
		Name:  "fan-out",
		Title: "Many machines at once",
		About: "Machines with nothing on their disks, each with a containerd and for ipcs a daemon of its own, start to " +
			"pull one image in the same moment, from one registry and for ipcs one publisher. All links carry " +
			"100 Mbit/s, those of registry and publisher too; 25 and, in `slow`, 10 Mbit/s where 16 machines, which share the cores of this computer, would " +
			"else be kept from using theirs. `start` runs `dpkg -l` in a container of Debian, which lists " +
			"the packages there. `whole` brings all content of the image to the disks: overlayfs by the pull, ipcs by " +
			"the pull and `ipcs-snapshotter fetch`. `ready` is when the last machine is done and `first` when the first " +
			"is. `sent` is what registry and publisher sent over their links. For ipcs each machine's node " +
			"listens, and was configured with the publisher and with the machines that were started before it, so that any " +
			"two are connected before the clock starts. 16 machines are measured in three rounds, each of which is 16 " +
			"starts already, as more would take too long. `registry` has no publisher: ten machines have the image from the registry and each other. `busy` is the share of the time " +
			"of all cores in which they did something meanwhile, for all machines together: near 100 % it is this " +
			"one computer that was measured and not the links. " + bothEnds + " Processor time is that of all machines that pull " +
			"together, memory that of the one that held most.",
		Systems: []string{"overlayfs", "ipcs", "ipcs-fetch", "ipcs-registry-fetch"},
		Main:    []string{metricReady.Name, metricSent.Name, metricBusy.Name},
		Measure: measureFanOut,
	}
	start, whole := []string{"overlayfs", "ipcs"}, []string{"overlayfs", "ipcs-fetch"}
	quick, slow, slowest := Link{Mbit: 100}, Link{Mbit: 25}, Link{Mbit: 10}
	s.Cases = []Case{
		{Name: "start-1", Image: "base", Command: `dpkg -l`, Count: 1, Rounds: 5, Links: []Link{quick}, Only: start},
		{Name: "start-16", Image: "base", Command: `dpkg -l`, Count: 16, Rounds: 3, Links: []Link{quick}, Only: start},
		{Name: "whole-1", Image: "slice-25", Count: 1, Rounds: 5, Links: []Link{quick, slow}, Only: whole},
		{Name: "whole-4", Image: "slice-25", Count: 4, Rounds: 5, Quick: 1, Links: []Link{quick}, Only: whole},
		{Name: "whole-16", Image: "slice-25", Count: 16, Rounds: 3, Links: []Link{quick, slow}, Only: whole},
		// What overlayfs takes there is the registry's link, 16 times.
		{Name: "slow-1", Image: "slice-25", Count: 1, Rounds: 5, Links: []Link{slowest}, Only: whole[1:]},
		{Name: "slow-16", Image: "slice-25", Count: 16, Rounds: 3, Links: []Link{slowest}, Only: whole[1:]},
		{Name: "registry-10", Image: "slice-25", Count: 10, Rounds: 3, Links: []Link{slow}, Only: []string{"overlayfs", "ipcs-registry-fetch"}},
	}
	return s
}

// measureFanOut publishes the image, and has it pulled by many.
func measureFanOut(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, published, err := publish(ctx, r, l, r.Image)
		if err != nil {
			return err
		}
		machines := make([]*lab.Machine, r.Count)
		for i := range machines {
			if machines[i], err = l.Machine(ctx, fmt.Sprintf("consumer%d", i+1)); err != nil {
				return err
			}
		}
		return r.EachLink(func() error {
			if err := site.SetRate(ctx, r.Link.Mbit); err != nil {
				return err
			}
			for _, m := range machines {
				if err := m.SetRate(ctx, r.Link.Mbit); err != nil {
					return err
				}
			}
			return r.Rotate(ctx, func(round int, s system.System) error {
				return crowdOnce(ctx, r, site, machines, round, s, published[s.Name()])
			})
		})
	})
}

// crowdOnce measures one round of all machines.
func crowdOnce(ctx context.Context, r *Run, site *system.Site, machines []*lab.Machine, round int, s system.System, img *system.Image) (err error) {
	hosts, err := startCrowd(ctx, r, machines, round, s, img)
	defer func() { err = errors.Join(err, stopCrowd(ctx, hosts)) }()
	if err != nil {
		return err
	}
	if err := freshCaches(); err != nil {
		return err
	}
	sent, err := sentBy(site.Servers())
	if err != nil {
		return err
	}
	costs, err := newCosts(site, hosts...)
	if err != nil {
		return err
	}
	cpu, err := lab.ReadCPU()
	if err != nil {
		return err
	}
	first, last, err := runCrowd(ctx, r, hosts, img)
	if err != nil {
		return err
	}
	cpuAfter, err := lab.ReadCPU()
	if err != nil {
		return err
	}
	sentAfter, err := sentBy(site.Servers())
	if err != nil {
		return err
	}
	busy := 100 * cpu.Busy(cpuAfter)
	r.Log("%-18s first after %6.2f s, last after %6.2f s, sent %7.1f MB, cores %3.0f %% busy",
		s.Name(), first.Seconds(), last.Seconds(), float64(sentAfter-sent)/1e6, busy)
	r.Record(round, s.Name(), metricReady, last.Seconds())
	r.Record(round, s.Name(), metricSoonest, first.Seconds())
	r.Record(round, s.Name(), metricSent, float64(sentAfter-sent))
	r.Record(round, s.Name(), metricBusy, busy)
	return costs.record(r, round, s.Name())
}

// startCrowd starts a host on every machine, one after the other: a node is given the
// addresses of those before it. What was started is returned with an error, too.
func startCrowd(ctx context.Context, r *Run, machines []*lab.Machine, round int, s system.System, img *system.Image) ([]*system.Host, error) {
	var hosts []*system.Host
	opts := system.Options{Peers: img.Peers, Registry: img.Registry()}
	for i, m := range machines {
		if i == 0 { // one of many that do the same
			opts.Profile = r.Profile(s.Name(), round)
		}
		h, err := s.Start(ctx, m, fmt.Sprintf("%s-%d", s.Name(), round), opts)
		if err != nil {
			return hosts, fmt.Errorf("%s: %w", m.Name, err)
		}
		hosts, opts.Profile = append(hosts, h), ""
		if h.Daemon == nil {
			continue
		}
		status, err := h.Daemon.Status(ctx)
		if err != nil {
			return hosts, err
		}
		opts.Peers = append(opts.Peers[:len(opts.Peers):len(opts.Peers)], status.Addrs...)
	}
	return hosts, nil
}

// stopCrowd stops all hosts at once.
func stopCrowd(ctx context.Context, hosts []*system.Host) error {
	var group errgroup.Group
	errs := make([]error, len(hosts))
	for i, h := range hosts {
		group.Go(func() error {
			errs[i] = h.Stop(ctx)
			return nil
		})
	}
	return errors.Join(group.Wait(), errors.Join(errs...))
}

// runCrowd has all hosts do what the case says at once, and returns when the first and
// the last were done. When one fails the others are ended.
func runCrowd(ctx context.Context, r *Run, hosts []*system.Host, img *system.Image) (first, last time.Duration, err error) {
	group, ctx := errgroup.WithContext(ctx)
	done := make([]time.Duration, len(hosts))
	for i, h := range hosts {
		group.Go(func() error {
			var err error
			if done[i], err = play(ctx, r, h, img); err != nil {
				return fmt.Errorf("%s: %w%s", h.Machine.Name, err, h.Tail())
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, 0, err
	}
	first = done[0]
	for _, d := range done {
		first, last = min(first, d), max(last, d)
	}
	return first, last, nil
}

// play does what the case says on one host, and returns how long it took.
func play(ctx context.Context, r *Run, h *system.Host, img *system.Image) (time.Duration, error) {
	if r.Command == "" {
		return pullAll(ctx, h, img.Ref, wholeReaders)
	}
	_, ready, err := pullAndRun(ctx, h, img.Ref, r.Command)
	return ready, err
}

// sentBy returns what machines have sent over their links.
func sentBy(machines []*lab.Machine) (int64, error) {
	var all int64
	for _, m := range machines {
		n, err := m.Sent()
		if err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}
