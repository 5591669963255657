// Package bench measures ipcs against what it stands in for, as ratios within one run:
// machines drift, and seconds of different runs say nothing.
//
// Each measurement alternates between the two sides for some rounds and takes the
// median of each. What is measured:
//
//   - the start: from the start of the pull to the end of a command, on a fresh machine
//     with a limited link and no page cache, against overlayfs;
//   - warm reads: listing a tree, reading 12,000 small files and one large one, each in
//     a fresh mount as a new container has it, with everything on the disk and in the
//     page cache, the first time and again, against overlayfs;
//   - convert, from an OCI layout to a daemon's store on the same disk, against tar;
//   - the daemon's resident memory while the image is mounted.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/demo"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// Options say where to measure and how often.
type Options struct {
	Lab    lab.Options
	Images string // folder of the images that are kept
	Rounds int
	Out    io.Writer
}

// A Result is one measurement: two medians, or one figure, and what is allowed.
type Result struct {
	Name      string
	Base, New time.Duration
	Limit     float64 // of New/Base
}

// Ratio is what the limit is for.
func (r Result) Ratio() float64 { return r.New.Seconds() / r.Base.Seconds() }

// Run measures everything and prints a table.
func Run(ctx context.Context, opts Options) error {
	start, err := demo.Play(ctx, demo.Options{
		Lab: opts.Lab, Images: opts.Images, Out: opts.Out, Command: demo.DefaultCommand, Rounds: opts.Rounds,
	})
	if err != nil {
		return err
	}
	results := []Result{{
		Name: fmt.Sprintf("start at %d Mbit/s, against overlayfs", opts.Lab.Rate),
		Base: start.Overlayfs.Total, New: start.Ipcs.Total, Limit: 0.35,
	}}
	more, err := local(ctx, opts)
	if err != nil {
		return err
	}
	printTable(opts.Out, append(results, more...), start.Ipcs.Resident)
	return nil
}

// local measures what needs no network, on one machine.
func local(ctx context.Context, opts Options) (_ []Result, err error) {
	opts.Lab.Rate = 0
	l, err := lab.Open(ctx, opts.Lab)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close(), l.Leftovers()) }()
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return nil, err
	}
	debian, err := images.Ensure(ctx, opts.Images, "debian", printer(opts.Out))
	if err != nil {
		return nil, err
	}
	files, err := images.Ensure(ctx, opts.Images, "files", printer(opts.Out))
	if err != nil {
		return nil, err
	}
	conversion, err := measureConvert(ctx, m, debian, opts.Rounds)
	if err != nil {
		return nil, err
	}
	reads, err := measureReads(ctx, m, files, opts.Rounds)
	return append(reads, conversion), err
}

func printer(w io.Writer) func(string, ...any) {
	return func(format string, args ...any) { fmt.Fprintf(w, "    "+format+"\n", args...) }
}

// median of the durations, which are not empty.
func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func printTable(w io.Writer, results []Result, resident int64) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "measurement\tthem\tipcs\tratio\tlimit\t")
	for _, r := range results {
		verdict := "ok"
		if r.Ratio() > r.Limit {
			verdict = "TOO SLOW"
		}
		fmt.Fprintf(t, "%s\t%.3f s\t%.3f s\t%.2f\t%.2f\t%s\n",
			r.Name, r.Base.Seconds(), r.New.Seconds(), r.Ratio(), r.Limit, verdict)
	}
	fmt.Fprintf(t, "daemon resident, image mounted\t\t%.0f MiB\t\t120 MiB\t\n", float64(resident)/(1<<20))
	t.Flush()
}

// measureConvert times convert of a layout into the empty store of a new daemon, and
// tar xzf of the same layers.
func measureConvert(ctx context.Context, m *lab.Machine, layout string, rounds int) (Result, error) {
	r := Result{Name: "convert, against tar xzf", Limit: 2}
	var base, converted []time.Duration
	for i := range rounds {
		dir := filepath.Join(m.Dir(), fmt.Sprintf("untar-%d", i))
		d, err := timed(m.Command(ctx, "sh", "-c",
			`mkdir "$1" && for l in $(ls -S "$2"/blobs/sha256/*); do case $(head -c 2 "$l" | od -An -tx1) in " 1f 8b") tar -C "$1" -xzf "$l" || exit;; esac; done`,
			"untar", dir, layout))
		if err != nil {
			return r, err
		}
		base = append(base, d)
		daemon, err := m.StartDaemon(ctx, lab.DaemonOptions{Root: fmt.Sprintf("convert-%d", i)})
		if err != nil {
			return r, err
		}
		d, err = timed(m.Command(ctx, "convert", "--mediatype", "unixfs", "--ipfs-api", daemon.API,
			"oci:"+layout+":"+images.Tag, "oci:"+filepath.Join(m.Dir(), fmt.Sprintf("converted-%d", i))+":ipcs"))
		if err != nil {
			return r, err
		}
		converted = append(converted, d)
		if err := daemon.Stop(); err != nil {
			return r, err
		}
	}
	r.Base, r.New = median(base), median(converted)
	return r, nil
}
