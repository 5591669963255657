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
	what := flag.String("get", "lab", "lab: what the lab runs; kubo: Kubo, for the benchmark; packages: only Debian's packages for the lab; lint: the linters")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *dir, *what)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tools:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir, what string) error {
	log := func(format string, args ...any) { fmt.Printf("tools: "+format+"\n", args...) }
	switch what {
	case "lint":
		return tools.Ensure(ctx, dir, log, tools.Lint...)
	case "kubo":
		return tools.Ensure(ctx, dir, log, tools.Kubo...)
	case "packages":
		return tools.Packages(ctx, tools.LabCommands())
	case "lab":
		if err := tools.Packages(ctx, tools.LabCommands()); err != nil {
			return err
		}
		return tools.Ensure(ctx, dir, log, tools.Lab...)
	}
	return fmt.Errorf("-get %q: want lab, kubo, packages or lint", what)
}
