package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// The metrics of a cold start.
var (
	metricReady    = result.Metric{Name: "ready", Unit: "s", Better: result.Lower}
	metricPull     = result.Metric{Name: "pull", Unit: "s", Better: result.Lower}
	metricReceived = result.Metric{Name: "received", Unit: "B", Better: result.Lower}
	metricCPU      = result.Metric{Name: "cpu", Unit: "s", Better: result.Lower}
	metricDaemon   = result.Metric{Name: "daemon-cpu", Unit: "s", Better: result.Lower}
	metricResident = result.Metric{Name: "resident", Unit: "B", Better: result.Lower}
)

// workloads are the images that start, with a command for each: from none but a shell to a build.
var workloads = []Case{
	{Name: "debian", Image: "base", Command: `sh -c true`, Rounds: 5, Quick: 3},
	{Name: "python", Image: "debian", Command: pythonImport, Rounds: 5, Quick: 3},
	{Name: "node", Image: "node", Command: `node -e 'require("http"); console.log(1)'`, Rounds: 5},
	{Name: "golang", Image: "golang", Command: goBuild, Rounds: 3},
	{Name: "postgres", Image: "postgres", Command: `ls -lR /usr`, Rounds: 5},
	{Name: "torch", Image: "torch", Command: `python3 -c 'import torch; print(torch.ones(3).sum())'`, Rounds: 3},
}

// pythonImport loads what most programs in Python load.
const pythonImport = `python3 -c 'import json, ssl, http.server, sqlite3'`

// goBuild compiles a program that prints a line, and what it needs of the library.
const goBuild = `sh -c 'mkdir /tmp/hello && cd /tmp/hello && printf "module hello\n" >go.mod &&
printf "package main\nimport \"fmt\"\nfunc main() { fmt.Println(1) }\n" >main.go && CGO_ENABLED=0 go build .'`

// cold is the scenario that lazy pulling is for.
func cold() Scenario {
	s := Scenario{
		Name:  "cold-start",
		Title: "Cold start",
		About: "From the start of `ctr image pull` to the end of a command in a container, on a machine that has " +
			"nothing of the image: new folders for containerd and daemon in every run, page cache dropped. " +
			"containerd and the daemons are up before the clock starts, and ipcs's has dialled its peers, as on a machine " +
			"that has been running; nobody has connected to the registry yet. " +
			"`ready` is the whole, `pull` the part that the first command takes, `received` what came over the " +
			"machine's link, `cpu` what containerd and the system's daemons used on processors, `daemon-cpu` the daemons " +
			"alone, `resident` the daemons' memory at the end. " +
			"Some systems are measured over the first link alone.",
		Systems:    []string{"overlayfs", "overlayfs-zstd", "erofs", "ipcs", "ipcs-profile", "ipcs-kubo", "stargz", "stargz-optimized"},
		Quick:      []string{"overlayfs", "ipcs"},
		Everywhere: []string{"overlayfs", "overlayfs-zstd", "ipcs", "ipcs-profile", "stargz-optimized"},
		Main:       []string{metricReady.Name, metricReceived.Name},
		Measure:    measureCold,
		Planned: []result.Missing{
			{System: "ipcs on Kubo", Reason: "with Kubo as the consumer's own node it was not measured; docs/tuning.md has what Kubo gives"},
		},
	}
	slow, fast := Link{Mbit: 200}, Link{Mbit: 1000}
	far := Link{Mbit: 1000, RTT: 20 * time.Millisecond}
	for _, c := range workloads {
		c.Links = []Link{fast, slow, far}
		if c.Quick > 0 {
			c.QuickLink = slow
		}
		s.Cases = append(s.Cases, c)
	}
	return s
}

// measureCold publishes the image for every system, and then starts it on new hosts.
func measureCold(ctx context.Context, r *Run) error {
	return measureStarts(ctx, r, trial.recordStart)
}

// measureStarts is measureCold with a function that records a start.
func measureStarts(ctx context.Context, r *Run, record func(t trial, st start)) error {
	return r.Lab(ctx, func(l *lab.Lab) error {
		site, published, err := publish(ctx, r, l, r.Image)
		if err != nil {
			return err
		}
		return r.consume(ctx, l, site, published, func(t trial) error {
			st, err := t.start(ctx)
			if err == nil {
				record(t, st)
			}
			return err
		})
	})
}

// publish makes a site and puts an image there for every system, over links without a
// limit.
func publish(ctx context.Context, r *Run, l *lab.Lab, image string) (*system.Site, map[string]*system.Image, error) {
	site, err := r.site(ctx, l)
	if err != nil {
		return nil, nil, err
	}
	published, err := publishAt(ctx, r, site, image)
	return site, published, err
}

// site makes a site whose programs are profiled if this run's are.
func (r *Run) site(ctx context.Context, l *lab.Lab) (*system.Site, error) {
	site, err := system.NewSite(ctx, l, r.Layout)
	if err != nil {
		return nil, err
	}
	site.Profile = func(program string) string { return r.Profile(program, 0) }
	return site, nil
}

// publishAt puts an image on a site for every system. What it writes does not wait in
// the page cache for its turn in a measurement.
func publishAt(ctx context.Context, r *Run, site *system.Site, image string) (map[string]*system.Image, error) {
	published := map[string]*system.Image{}
	err := r.Each(ctx, func(s system.System) error {
		img, err := s.Publish(ctx, site, system.Source{Image: image, Command: r.Command})
		published[s.Name()] = img
		return err
	})
	syscall.Sync()
	return published, err
}

// A start is a cold start that was measured.
type start struct {
	pull, ready time.Duration
	took        consumption
}

// start measures one cold start.
func (t trial) start(ctx context.Context) (st start, err error) {
	h, err := t.host(ctx)
	if err != nil {
		return st, err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	if err := freshCaches(); err != nil {
		return st, err
	}
	meter, err := newMeter(h)
	if err != nil {
		return st, err
	}
	if st.pull, st.ready, err = pullAndRun(ctx, h, t.image.Ref, t.Command); err != nil {
		return st, fmt.Errorf("%w%s", err, h.Tail())
	}
	st.took, err = meter.read()
	return st, err
}

// recordStart notes the figures of a cold start.
func (t trial) recordStart(st start) {
	took := st.took
	t.log("pulled after %6.2f s, ready after %6.2f s, received %7.1f MB", st.pull.Seconds(), st.ready.Seconds(), float64(took.received)/1e6)
	t.record(metricReady, st.ready.Seconds())
	t.record(metricPull, st.pull.Seconds())
	t.record(metricReceived, float64(took.received))
	t.record(metricCPU, took.cpu.Seconds())
	if took.resident > 0 {
		t.record(metricDaemon, took.daemonCPU.Seconds())
		t.record(metricResident, float64(took.resident))
	}
}

// containerID names the container that is run on a host. The folder that runc keeps
// containers in is one for all containerds on this computer.
func containerID(h *system.Host) string {
	return fmt.Sprintf("bench-%d-%s", os.Getpid(), h.Machine.Name)
}

// longestRun is when a command is ended: one that hangs would never be.
const longestRun = 10 * time.Minute

// pullAndRun returns what the pull took, and what pull and command took.
func pullAndRun(ctx context.Context, h *system.Host, ref, command string) (pull, ready time.Duration, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, longestRun, fmt.Errorf("it did not end within %v", longestRun))
	defer cancel()
	first, second := h.Pull(ctx, ref), h.Run(ctx, ref, containerID(h), command)
	start := time.Now()
	if _, err := lab.Output(first); err != nil {
		return 0, 0, errors.Join(err, context.Cause(ctx))
	}
	pull = time.Since(start)
	if _, err := lab.Output(second); err != nil {
		return 0, 0, errors.Join(err, context.Cause(ctx))
	}
	return pull, time.Since(start), nil
}

// freshCaches leaves nothing to be written and nothing cached, as after a boot.
func freshCaches() error {
	syscall.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200)
}
