package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/lab/bench/result"
)

// errWorse makes the exit code of "bench compare --fail".
var errWorse = errors.New("something is worse")

func compareCommand() *cobra.Command {
	var all, asJSON, fail bool
	c := &cobra.Command{
		Use:   "compare OLD NEW",
		Short: "Say what got better or worse beyond noise from one run to another",
		Long: `Say what got better or worse beyond noise from one run to another.

OLD and NEW are folders of reports, or single ones. What has a ratio to the base in both
runs is compared by it; absolute values are, where both ran on the same machine. With four
rounds or more on both sides, a difference is beyond noise when a U-test finds it (p < 0.05)
and the medians are more than 3 % apart; with fewer, when the ranges do not overlap and the
medians are more than 10 % apart; with one run each, when these are more than 5 % apart.
One run against more is not judged.`,
		Example: "  bench compare bench/results .cache/results-quick",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var runs [2][]*result.Report
			for i, path := range args {
				var err error
				if runs[i], err = result.Load(path); err != nil {
					return err
				}
				if len(runs[i]) == 0 {
					return fmt.Errorf("%s: no reports: \"bench run --out %s\" makes them", path, path)
				}
			}
			comparison := result.Compare(runs[0], runs[1])
			if err := show(cmd.OutOrStdout(), runs, comparison, all, asJSON); err != nil {
				return err
			}
			if fail && comparison.Worse() {
				return errWorse
			}
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "also what did not change beyond noise, and what only one of them has")
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().BoolVar(&fail, "fail", false, "exit with 1 when something is worse or fails now")
	return c
}

// show writes the comparison, for a terminal below a line about each run.
func show(out io.Writer, runs [2][]*result.Report, c *result.Comparison, all, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", " ")
		return enc.Encode(c)
	}
	for i, name := range []string{"old", "new"} {
		fmt.Fprintf(out, "%s: %s\n", name, about(runs[i]))
	}
	return c.Text(out, all)
}

// about says in a line which run the reports are of.
func about(reports []*result.Report) string {
	var parts []string
	add := func(s string) {
		if !slices.Contains(parts, s) {
			parts = append(parts, s)
		}
	}
	for _, r := range reports {
		kind := "whole run"
		if r.Quick {
			kind = "quick run"
		}
		add(kind)
		add("commit " + r.Commit)
		add(r.Started.Format(time.DateOnly))
		add(fmt.Sprintf("%s, %d cores, %.0f GiB, Linux %s", r.Machine.CPU, r.Machine.Cores, float64(r.Machine.Memory)/(1<<30), r.Machine.Kernel))
	}
	return strings.Join(parts, "; ")
}
