// Command bench measures ipcs against what people use now, compares runs, and writes
// the document of the results: see package bench.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/lab/bench"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := ending()
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// ending returns a context that ends when the program shall: what it made is cleared away
// then. A run in a terminal that is closed ends too, unless it is to survive that (nohup).
// Nothing is said to a pipe that nobody reads any more, but that must not end the program
// in the middle of clearing away; ignored altogether, the signal would be ignored in every
// program that is started here, too.
func ending() (context.Context, context.CancelFunc) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		signals = append(signals, syscall.SIGHUP)
	}
	return signal.NotifyContext(context.Background(), signals...)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use: "bench", Short: "Measure ipcs against what people use now",
		SilenceErrors: true, SilenceUsage: true,
	}
	root.AddCommand(runCommand(), compareCommand(), reportCommand(), listCommand())
	return root
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
			for _, u := range bench.ToCome() {
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
