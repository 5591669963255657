// Command bench measures ipcs against what people use now, compares runs, and writes
// the document of the results: see package bench.
package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "bench", Short: "Measure ipcs against what people use now",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(runCommand(), compareCommand(), reportCommand(), listCommand())
	return root
}

func runCommand() *cobra.Command {
	var opts bench.Options
	var profiles bool
	c := &cobra.Command{
		Use:   "run",
		Short: "Run scenarios and write a report of each",
		Example: `  bench run                                   # everything, under two hours
  bench run --quick --out /tmp/results        # under ten minutes
  bench run --only cold-start/golang --pprof`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Commit, opts.Log = version, cmd.OutOrStdout()
			opts.Lab = cmp.Or(os.Getenv("IPCS_BENCH_LAB"), "bench")
			if profiles {
				opts.Profiles = filepath.Join(opts.Results, "pprof")
			}
			return bench.Measure(cmd.Context(), opts)
		},
	}
	f := c.Flags()
	f.StringVar(&opts.Cache, "cache", ".cache", "folder of images, programs and machines")
	f.StringVar(&opts.Bin, "bin", "bin", "folder of convert and ipcs-snapshotter")
	f.StringVar(&opts.Results, "out", filepath.Join(".cache", "results"), "folder for the reports")
	f.BoolVar(&opts.Quick, "quick", false, "fewer cases and rounds")
	f.StringSliceVar(&opts.Only, "only", nil, "scenarios, or SCENARIO/CASE (default: all)")
	f.BoolVar(&profiles, "pprof", false, "write CPU, allocation and blocking profiles beside the reports")
	return c
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List scenarios, their cases and the systems", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			for _, s := range bench.Scenarios() {
				fmt.Fprintf(out, "%s: %s\n    systems: %s\n", s.Name, s.Title, strings.Join(s.Systems, ", "))
				for _, c := range s.Cases {
					fmt.Fprintf(out, "    %s/%s\n", s.Name, c.Name)
				}
			}
			fmt.Fprintln(out, "\nnot built yet:")
			for _, u := range bench.Unbuilt() {
				fmt.Fprintf(out, "    %-18s %s: %s\n", u.Name, u.Title, u.Reason)
			}
			fmt.Fprintln(out, "\nsystems:")
			for _, s := range system.All() {
				fmt.Fprintf(out, "    %-18s %s\n", s.Name(), s.About())
			}
			return nil
		},
	}
}
