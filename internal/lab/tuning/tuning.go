// Package tuning measures what makes Kubo, as the node of ipcs, faster or slower: how many requests
// are under way, how blocks are asked for, the datastore, and where the processors' time goes.
//
// What is moved is a real image: all blocks that convert makes of Debian with Python, which are
// put on a Kubo and pulled over its RPC by the client that the daemon has. Kubo, this process and, where
// there is a network, the publisher share one computer, so that speeds are of use only
// beside each other. Of the variants of a table each is measured once in every round, in an order
// that turns, and its ratio is the median of the rounds' ratios to the first variant.
//
// One table is measured at a time, by one goroutine; the clients have goroutines of their own.
package tuning

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// Options say what is measured, and where.
type Options struct {
	Lab    lab.Options // its Name and Rate are set here
	Images string      // folder of the lab's images
	Only   string      // names of the tables, a regular expression; "": all
	Rounds int         // default 3
	Log    func(format string, args ...any)
}

// A Table is what was measured, for docs/tuning.md.
type Table struct {
	Name, Title string
	Head        []string
	Rows        [][]string
}

// Markdown writes the table.
func (t Table) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| %s |\n|%s\n", t.Title, strings.Join(t.Head, " | "), strings.Repeat("---|", len(t.Head)))
	for _, row := range t.Rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	return b.String()
}

// studies are the tables, by name.
var studies = []struct {
	name string
	run  func(*study, context.Context) ([]Table, error)
}{
	{"requests", (*study).requests},
	{"export", (*study).export},
	{"remote", (*study).remote},
	{"datastores", (*study).datastores},
	{"hotspots", (*study).hotspots},
}

// Names lists them.
func Names() []string {
	var names []string
	for _, s := range studies {
		names = append(names, s.name)
	}
	return names
}

// Run measures the tables that are asked for.
func Run(ctx context.Context, opts Options) ([]Table, error) {
	only, err := regexp.Compile("^(" + opts.Only + ")$")
	if err != nil {
		return nil, fmt.Errorf("names of tables: %w", err)
	}
	if opts.Rounds <= 0 {
		opts.Rounds = 3
	}
	set, err := load(ctx, opts)
	if err != nil {
		return nil, err
	}
	s := &study{Options: opts, set: set}
	var tables []Table
	for _, of := range studies {
		if opts.Only != "" && !only.MatchString(of.name) {
			continue
		}
		more, err := of.run(s, ctx)
		if err != nil {
			return nil, fmt.Errorf("table %s: %w", of.name, err)
		}
		tables = append(tables, more...)
	}
	if len(tables) == 0 {
		return nil, fmt.Errorf("no table is called %q; there are %s", opts.Only, strings.Join(Names(), ", "))
	}
	return tables, nil
}

// A study is one run.
type study struct {
	Options
	set *set
}

// open opens a lab whose links carry so many Mbit/s, or which has none.
func (s *study) open(ctx context.Context, rate int) (*lab.Lab, error) {
	opts := s.Lab
	opts.Name, opts.Rate, opts.Log = "tuning", rate, s.Log
	return lab.Open(ctx, opts)
}

// A sample is one measurement.
type sample struct {
	bytes, blocks int64
	took          time.Duration
	client, kubo  time.Duration // processor time
}

// A variant is what is compared.
type variant struct {
	name string
	run  func(context.Context) (sample, error)
}

// compare measures the variants in rounds, in an order that turns.
func (s *study) compare(ctx context.Context, variants []variant) (map[string][]sample, error) {
	samples := make(map[string][]sample)
	for round := range s.Rounds {
		for i := range variants {
			v := variants[(i+round)%len(variants)]
			got, err := v.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
			s.Log("%s: %d MB, %d blocks in %v", v.name, got.bytes/1e6, got.blocks, got.took.Round(time.Millisecond))
			samples[v.name] = append(samples[v.name], got)
		}
	}
	return samples, nil
}

// speeds makes the table of a comparison.
func (s *study) speeds(ctx context.Context, name, title, what string, variants []variant) (Table, error) {
	samples, err := s.compare(ctx, variants)
	if err != nil {
		return Table{}, err
	}
	t := Table{Name: name, Title: title, Head: []string{what, "MB/s", "blocks/s", "ratio (least to most)", "s of processor a GB: client", "Kubo"}}
	base := samples[variants[0].name]
	for _, v := range variants {
		of := samples[v.name]
		ratios := make([]float64, len(of))
		for i := range of {
			ratios[i] = of[i].speed() / base[i].speed()
		}
		t.Rows = append(t.Rows, []string{
			v.name, number(median(of, sample.speed)), number(median(of, func(s sample) float64 { return float64(s.blocks) / s.took.Seconds() })),
			fmt.Sprintf("%.2f (%.2f to %.2f)", middle(ratios), slices.Min(ratios), slices.Max(ratios)), number(median(of, func(s sample) float64 { return s.a(s.client) })), number(median(of, func(s sample) float64 { return s.a(s.kubo) })),
		})
	}
	return t, nil
}

// speed is in MB/s.
func (s sample) speed() float64 { return float64(s.bytes) / 1e6 / s.took.Seconds() }

// a is processor time a GB, in seconds.
func (s sample) a(time time.Duration) float64 { return time.Seconds() / float64(s.bytes) * 1e9 }

func median(of []sample, value func(sample) float64) float64 {
	values := make([]float64, len(of))
	for i, s := range of {
		values[i] = value(s)
	}
	return middle(values)
}

// middle is the median.
func middle(values []float64) float64 {
	values = slices.Sorted(slices.Values(values))
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// number writes a value with two digits or more.
func number(v float64) string {
	if v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// ownCPU is the processor time of this process.
func ownCPU() (time.Duration, error) {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0, fmt.Errorf("processor time of this process: %w", err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()), nil
}

// measure measures what f does, which returns what it has moved. Without a Kubo its processor
// time is 0.
func measure(k *lab.Kubo, f func() (bytes, blocks int64, err error)) (got sample, err error) {
	kuboBefore, ownBefore := time.Duration(0), time.Duration(0)
	if k != nil {
		if kuboBefore, err = k.CPU(); err != nil {
			return got, err
		}
	}
	if ownBefore, err = ownCPU(); err != nil {
		return got, err
	}
	start := time.Now()
	if got.bytes, got.blocks, err = f(); err != nil {
		return got, err
	}
	got.took = time.Since(start)
	if got.client, err = ownCPU(); err != nil {
		return got, err
	}
	got.client -= ownBefore
	if k != nil {
		if got.kubo, err = k.CPU(); err != nil {
			return got, err
		}
		got.kubo -= kuboBefore
	}
	return got, nil
}
