package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// bench is a run of the benchmark.
type bench struct {
	Options
	programs system.Programs
}

// errLab is returned by Run.Lab when there is no lab: then nothing can be measured, which
// is no failure of what would have been.
var errLab = errors.New("open the lab")

// ErrFailed is returned by Measure when some measurements failed; the reports say
// which and why.
var ErrFailed = errors.New("some measurements failed")

// Measure runs the scenarios and writes a report for each as it is done.
func Measure(ctx context.Context, opts Options) error {
	b := &bench{Options: opts, programs: finder(filepath.Join(opts.Cache, "bin"))}
	chosen, err := choose(Scenarios(), opts)
	if err != nil {
		return err
	}
	if err := b.ready(ctx); err != nil {
		return err
	}
	failed := false
	var empty []string
	for _, s := range chosen {
		report, err := b.scenario(ctx, s)
		if ctx.Err() != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name, err)
		}
		failed = failed || slices.ContainsFunc(report.Missing, func(m result.Missing) bool { return m.Failed })
		if len(report.Figures) == 0 { // which would only hide those of an earlier run
			empty = append(empty, s.Name)
			continue
		}
		if err := report.Save(opts.Results); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(opts.Results, partial)); err != nil {
			return err
		}
	}
	if len(empty) > 0 {
		return fmt.Errorf("%w: no figure of %s, which has no report: see above why", ErrFailed, strings.Join(empty, ", "))
	}
	if failed {
		return fmt.Errorf("%w: see FAILED above and \"missing\" in %s", ErrFailed, opts.Results)
	}
	return nil
}

// choose returns what is asked for, with the cases that are asked for.
func choose(all []Scenario, opts Options) ([]Scenario, error) {
	unknown := slices.Clone(opts.Only)
	var chosen []Scenario
	for _, s := range all {
		cases := s.Cases
		s.Cases = nil
		for _, c := range cases {
			if opts.Quick && c.Quick == 0 {
				continue
			}
			want := len(opts.Only) == 0
			for _, o := range opts.Only {
				if o == s.Name || o == s.Name+"/"+c.Name {
					want = true
					unknown = slices.DeleteFunc(unknown, func(u string) bool { return u == o })
				}
			}
			if want {
				s.Cases = append(s.Cases, c)
			}
		}
		if len(s.Cases) > 0 {
			chosen = append(chosen, s)
		}
	}
	if len(unknown) > 0 {
		return nil, fmt.Errorf("no scenario or case %s: \"bench list\" names them", strings.Join(unknown, ", "))
	}
	return chosen, nil
}

// partial is the folder among the results for what was measured of a scenario that goes on:
// a run of an hour that ends early has not been for nothing.
const partial = "partial"

// scenario measures every case. Only the end of ctx ends it early.
func (b *bench) scenario(ctx context.Context, s Scenario) (*result.Report, error) {
	started := time.Now()
	report := &result.Report{
		Schema: result.Schema, Scenario: s.Name, Base: s.Base, Commit: b.Commit, Quick: b.Quick, Images: map[string]result.Image{},
		Command: command(s, b.Options), Started: started.UTC().Truncate(time.Second), Missing: slices.Clone(s.Planned),
	}
	if report.Base == "" {
		report.Base = s.Systems[0]
	}
	var err error
	if report.Machine, err = machine(b.Cache); err != nil {
		return nil, err
	}
	if report.Versions, err = versions(ctx, b.programs); err != nil {
		return nil, err
	}
	systems, missing, err := b.available(ctx, s)
	if err != nil {
		return nil, err
	}
	report.Missing = append(report.Missing, missing...)
	rec := result.NewRecorder(report)
	for _, c := range s.Cases {
		r := &Run{Case: c, Scenario: s, bench: b, rec: rec, out: report, dead: map[string]bool{}}
		for _, sys := range systems {
			if len(c.Only) == 0 || slices.Contains(c.Only, sys.Name()) {
				r.Systems = append(r.Systems, sys)
			}
		}
		fmt.Fprintf(b.Log, "\n==> %s: %s\n", s.Name, c.Name)
		err := s.Measure(ctx, r)
		if ctx.Err() != nil || errors.Is(err, errLab) {
			return nil, err
		}
		if err != nil {
			r.missing("", err)
		}
		rec.Finish()
		report.Seconds = time.Since(started).Round(time.Second).Seconds()
		if err := report.Save(filepath.Join(b.Results, partial)); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// available returns the systems of a scenario that can be measured here, and why the
// others cannot.
func (b *bench) available(ctx context.Context, s Scenario) ([]system.System, []result.Missing, error) {
	var systems []system.System
	var missing []result.Missing
	names := s.Systems
	if b.Quick && len(s.Quick) > 0 {
		names = s.Quick
	}
	for _, name := range names {
		sys, err := system.Named(name)
		if err != nil {
			return nil, nil, err
		}
		if why := sys.Missing(ctx, b.programs); why != "" {
			fmt.Fprintf(b.Log, "\n%s: %s takes no part: %s\n", s.Name, name, why)
			missing = append(missing, result.Missing{System: name, Reason: why})
			continue
		}
		systems = append(systems, sys)
	}
	return systems, missing, nil
}

// command is what makes a scenario's report again.
func command(s Scenario, opts Options) string {
	target := "bench"
	if opts.Quick {
		target = "bench-quick"
	}
	return fmt.Sprintf("make %s ONLY=%s", target, s.Name)
}

// finder looks for programs among the lab's own first, as its machines do.
func finder(tools string) system.Programs {
	return func(name string) (string, error) {
		if path, err := exec.LookPath(filepath.Join(tools, name)); err == nil {
			return path, nil
		}
		return exec.LookPath(name)
	}
}
