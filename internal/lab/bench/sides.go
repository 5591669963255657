package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// onPublisher calls f with a machine that images are converted on, and the run's image.
func (r *Run) onPublisher(ctx context.Context, f func(m *lab.Machine, layout string) error) error {
	layout, err := r.Layout(ctx, r.Image)
	if err != nil {
		return err
	}
	return r.Lab(ctx, func(l *lab.Lab) error {
		m, err := l.Machine(ctx, "publisher")
		if err != nil {
			return err
		}
		return f(m, layout)
	})
}

// inTurns measures the sides that are compared in every round, the one or the other first.
func (r *Run) inTurns(sides ...func(round int) error) error {
	for round := range r.Rounds() {
		for _, side := range sides {
			if err := side(round); err != nil {
				return err
			}
		}
		slices.Reverse(sides)
	}
	return nil
}

// spent is what a side took: until its programs had ended, until all was on the disk, and of
// the processors.
type spent struct{ took, synced, cpu time.Duration }

// timedWrites measures run, which writes to dir, and returns the processor time that it took.
func timedWrites(dir string, run func() (time.Duration, error)) (spent, error) {
	start := time.Now()
	cpu, err := run()
	if err != nil {
		return spent{}, err
	}
	took := time.Since(start)
	if err := syncFS(dir); err != nil {
		return spent{}, err
	}
	return spent{took, time.Since(start), cpu}, nil
}

// recordSpent notes what a side took. The log says more.
func (r *Run) recordSpent(round int, side string, s spent, more string) {
	r.Log("%-18s %6.2f s, on the disk after %6.2f s, processors %6.2f s%s", side, s.took.Seconds(), s.synced.Seconds(), s.cpu.Seconds(), more)
	r.Record(round, side, metricTime, s.took.Seconds())
	r.Record(round, side, metricSynced, s.synced.Seconds())
	r.Record(round, side, metricCPU, s.cpu.Seconds())
}

// converted is what a run of convert took.
type converted struct {
	spent
	peak       int64
	daemonPeak int64 // of runMetered
}

// recordConverted notes what a metered run of convert took. The log says more.
func (r *Run) recordConverted(round int, c converted, more string) {
	r.recordSpent(round, sideConvert, c.spent,
		fmt.Sprintf(", peak %.0f MiB and the daemon's %.0f MiB%s", float64(c.peak)/(1<<20), float64(c.daemonPeak)/(1<<20), more))
	r.Record(round, sideConvert, metricPeak, float64(c.peak))
	r.Record(round, sideConvert, metricDaemonPeak, float64(c.daemonPeak))
}

// runMetered is runConvert with what the daemon used for it.
func runMetered(ctx context.Context, m *lab.Machine, d *lab.Daemon, mediatype, from, to, profile string) (converted, error) {
	before, err := d.CPU()
	if err != nil {
		return converted{}, err
	}
	c, err := runConvert(ctx, m, d, mediatype, from, to, profile)
	if err != nil {
		return c, err
	}
	after, err1 := d.CPU()
	peak, err2 := d.Peak()
	c.cpu, c.daemonPeak = c.cpu+after-before, peak
	return c, errors.Join(err1, err2)
}

// runConvert converts the image of one layout into another, to unixfs or back to tar.
func runConvert(ctx context.Context, m *lab.Machine, d *lab.Daemon, mediatype, from, to, profile string) (c converted, err error) {
	args := []string{"--mediatype", mediatype, "--ipfs-api", d.API}
	if mediatype == "unixfs" {
		args = append(args, "--seeds=false")
	}
	if profile != "" {
		args = append(args, "--pprof", profile)
	}
	cmd := m.Command(ctx, "convert", append(args, "oci:"+from+":"+images.Tag, "oci:"+to+":"+images.Tag)...)
	c.spent, err = timedWrites(to, func() (_ time.Duration, err error) {
		if c.peak, err = outputPeak(cmd); err != nil {
			return 0, err
		}
		return processorTime(cmd), nil
	})
	return c, err
}

// processorTime is what a command that has ended used, with what it started and waited for.
func processorTime(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// syncFS waits until all that was written to the disk of a folder is on it.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("sync the disk of %s: %w", dir, err)
	}
	return nil
}
