// Command tools builds the lab's tools into a folder and installs the Debian
// packages that the lab needs: see package tools.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hinshun/ipcs/internal/lab/tools"
)

func main() {
	dir := flag.String("dir", ".cache/bin", "the folder that the programs are put into")
	lint := flag.Bool("lint", false, "get the linters, not what the lab runs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *dir, *lint)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, lint bool) error {
	names := tools.Lint
	if !lint {
		names = tools.Lab
		if err := tools.Packages(ctx, tools.LabCommands()); err != nil {
			return err
		}
	}
	return tools.Ensure(ctx, dir, func(format string, args ...any) {
		fmt.Printf("tools: "+format+"\n", args...)
	}, names...)
}
