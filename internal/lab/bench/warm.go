package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// The metrics of work on what is local.
var (
	metricFirst = result.Metric{Name: "first", Unit: "s", Better: result.Lower}
	metricAgain = result.Metric{Name: "again", Unit: "s", Better: result.Lower}
	metricRun   = result.Metric{Name: "run", Unit: "s", Better: result.Lower}
)

// warm is about what every container pays for as long as it runs.
func warm() Scenario {
	usual := []string{"overlayfs", "erofs", "ipcs", "stargz"}
	s := Scenario{
		Name:  "warm",
		Title: "Work on files that are local",
		About: "All content is on the disk and in the page cache: before anything is measured, every system has pulled the " +
			"image and every file of it was read, and when all systems have it, every file of each is read once more, in " +
			"a new mount that is gone then; the hosts of all systems stay up, on one machine without links. The image of the first five has 12,000 files of 1 to 16 KiB in 100 folders and " +
			"three layers, and one file of 256 MiB. Each round mounts it anew, writable, as a container has it, and " +
			"does the work twice in one process: `first` in a mount that nobody has read from, `again` in the same one. " +
			"`find` is `find -ls`; `stat` calls lstat on every path, known beforehand; `small-files` walks the folders " +
			"and reads each small file with 1 MiB a read; `large-file` reads the large one so; `mmap` maps it and reads a " +
			"byte of every page, ten times, each in a mapping of its own. `python` and `go-build` are a `ctr run` from start to end, `run`, of the command that " +
			"starts cold in the first scenario, here in a container after others of that image, `busy` the share of all processors' time " +
			"in which they did something meanwhile, and `resident` the memory of the system's daemon afterwards; the " +
			"compiler's cache is the container's own, and empty. The ways to mount that older kernels leave, which this one " +
			"is made to take, are measured where they may differ from the best one.",
		Systems: append(slices.Clone(usual), "ipcs-loop", "ipcs-metacopy", "ipcs-hidden", "ipcs-fuse", "ipcs-served"),
		Quick:   []string{"overlayfs", "ipcs"},
		Main:    []string{metricFirst.Name, metricAgain.Name, metricRun.Name},
		Measure: measureWarm,
	}
	for _, w := range reads() {
		c := Case{Name: w.name, Image: "files", Rounds: 8}
		switch w.name {
		case "find", "small-files", "large-file":
			c.Rounds, c.Quick = 6, 5
		case "stat", "mmap": // say nothing else of the fallbacks
			c.Only = usual
		}
		s.Cases = append(s.Cases, c)
	}
	s.Cases = append(s.Cases,
		Case{Name: "python", Image: "debian", Command: pythonImport, Rounds: 8, Only: usual},
		Case{Name: "go-build", Image: "golang", Command: goBuild, Rounds: 5, Only: usual})
	return s
}

// measureWarm works in containers if the case has a command, and else in mounts.
func measureWarm(ctx context.Context, r *Run) error {
	return r.Lab(ctx, func(l *lab.Lab) (err error) {
		hosts, err := settle(ctx, r, l, r.Image)
		defer func() { err = errors.Join(err, hosts.stop(ctx)) }()
		if err != nil {
			return err
		}
		if r.Command != "" {
			return runWarm(ctx, r, hosts)
		}
		return readWarm(ctx, r, hosts)
	})
}

// readWarm measures one way of reading.
func readWarm(ctx context.Context, r *Run, hosts residents) error {
	all := reads()
	i := slices.IndexFunc(all, func(w read) bool { return w.name == r.Name })
	if i < 0 {
		return fmt.Errorf("no way of reading is called %s", r.Name)
	}
	var paths []string
	if err := hosts[r.Systems[0].Name()].inView(ctx, func(root string) (err error) {
		paths, err = list(root)
		return err
	}); err != nil {
		return err
	}
	return r.Rotate(ctx, func(round int, s system.System) error {
		return hosts[s.Name()].inView(ctx, func(root string) error {
			first, err := timed(func() error { return all[i].do(ctx, tree{root, paths}) })
			if err != nil {
				return err
			}
			again, err := timed(func() error { return all[i].do(ctx, tree{root, paths}) })
			if err != nil {
				return err
			}
			r.Log("%-18s first %7.3f s, again %7.3f s", s.Name(), first.Seconds(), again.Seconds())
			r.Record(round, s.Name(), metricFirst, first.Seconds())
			r.Record(round, s.Name(), metricAgain, again.Seconds())
			return nil
		})
	})
}

// runWarm measures a command in new containers, after one that is not measured: as many
// at once as the case says, or one.
func runWarm(ctx context.Context, r *Run, hosts residents) error {
	if err := r.Each(ctx, func(s system.System) error {
		_, err := hosts[s.Name()].runAll(ctx, r.Command, 1)
		return err
	}); err != nil {
		return err
	}
	return r.Rotate(ctx, func(round int, s system.System) error {
		before, err := lab.ReadCPU()
		if err != nil {
			return err
		}
		took, err := hosts[s.Name()].runAll(ctx, r.Command, max(1, r.Count))
		if err != nil {
			return err
		}
		after, err := lab.ReadCPU()
		if err != nil {
			return err
		}
		used, err := hosts[s.Name()].Usage()
		if err != nil {
			return err
		}
		busy := 100 * before.Busy(after)
		r.Log("%-18s ran %6.2f s, processors busy %3.0f %%", s.Name(), took.Seconds(), busy)
		r.Record(round, s.Name(), metricRun, took.Seconds())
		r.Record(round, s.Name(), metricBusy, busy)
		if used.Resident > 0 {
			r.Record(round, s.Name(), metricResident, float64(used.Resident))
		}
		return nil
	})
}

// timed returns how long f took.
func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	err := f()
	return time.Since(start), err
}
