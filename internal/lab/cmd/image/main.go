// Command image makes the lab's images: see package images.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/hinshun/ipcs/internal/lab/images"
)

func main() {
	dir := flag.String("dir", ".cache/images", "the folder that the layouts are put into")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *dir, flag.Args())
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string, names []string) error {
	for _, name := range names {
		if _, err := images.Ensure(ctx, dir, name, func(format string, args ...any) {
			fmt.Printf("image: "+format+"\n", args...)
		}); err != nil {
			return err
		}
	}
	return nil
}
