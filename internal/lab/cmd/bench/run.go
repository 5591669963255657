package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// notes is the folder of SCENARIO.md: why ipcs loses where it does.
var notes = filepath.Join("bench", "notes")

func runCommand() *cobra.Command {
	var opts bench.Options
	var profiles bool
	var documents, earlier string
	c := &cobra.Command{
		Use:   "run",
		Short: "Run scenarios and write a report of each",
		Long: `Run scenarios and write a report of each.

The document and the comparison are made at the end of what was measured, also when some
of it failed. With SIGINT, SIGTERM or SIGHUP the run ends and leaves nothing behind.`,
		Example: `  bench run                                   # everything, under two hours
  bench run --quick --out /tmp/results        # under ten minutes
  bench run --only cold-start/golang --pprof
  bench run --rounds 1                        # does everything work here?`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Commit, opts.Log = version, cmd.OutOrStdout()
			opts.Lab = cmp.Or(os.Getenv("IPCS_BENCH_LAB"), "bench")
			if profiles {
				opts.Profiles = filepath.Join(opts.Results, "pprof")
			}
			err := bench.Measure(cmd.Context(), opts)
			if documents != "" {
				err = errors.Join(err, writeDocument(folders{results: opts.Results, notes: notes, out: documents}))
			}
			if earlier != "" && (err == nil || errors.Is(err, bench.ErrFailed)) {
				err = errors.Join(err, compareWith(cmd.OutOrStdout(), earlier, opts.Results))
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&opts.Cache, "cache", ".cache", "folder of images, programs and machines")
	f.StringVar(&opts.Bin, "bin", "bin", "folder of convert and ipcs-snapshotter")
	f.StringVar(&opts.Results, "out", filepath.Join(".cache", "results"), "folder for the reports")
	f.BoolVar(&opts.Quick, "quick", false, "fewer cases and rounds")
	f.IntVar(&opts.Rounds, "rounds", 0, "at most so many rounds, to see that all works (default: what each case says)")
	f.StringSliceVar(&opts.Only, "only", nil, "scenarios, or SCENARIO/CASE (default: all)")
	f.BoolVar(&profiles, "pprof", false, "write CPU, allocation and blocking profiles beside the reports")
	f.StringVar(&documents, "document", "", "folder to write the document of the reports to")
	f.StringVar(&earlier, "compare", "", "folder of earlier reports to compare these with, if there are any")
	return c
}

// writeDocument writes the document of all reports there are. A run that was over before
// it had one changes nothing.
func writeDocument(f folders) error {
	if _, err := os.Stat(f.results); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	files, err := document(f)
	if err != nil {
		return err
	}
	return files.Save(f.out)
}

// compareWith compares with reports of an earlier run, which need not be there: a project
// has a first one, and a first one of each schema.
func compareWith(out io.Writer, earlier, results string) error {
	old, err := result.Load(earlier)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, result.ErrSchema) || err == nil && len(old) == 0 {
		fmt.Fprintf(out, "\n%s: nothing to compare with yet\n", earlier)
		return nil
	}
	if err != nil {
		return err
	}
	now, err := result.Load(results)
	if err != nil {
		return err
	}
	fmt.Fprintln(out)
	runs := [2][]*result.Report{old, now}
	return show(out, runs, result.Compare(old, now), false, false)
}
