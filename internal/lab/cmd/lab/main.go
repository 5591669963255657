// Command lab plays what needs more than one machine, on machines made of network
// namespaces: the demo, and the containerd and the Kubo of the getting-started.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/demo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

// run carries out one subcommand.
func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: lab demo|containerd|convert|ipfs [flags]")
	}
	flags := flag.NewFlagSet("lab "+args[0], flag.ContinueOnError)
	cache := flags.String("cache", ".cache", "folder for images, tools and machines")
	bin := flags.String("bin", "bin", "folder of convert and ipcs-snapshotter")
	rate := flags.Int("rate", 200, "Mbit/s of each machine's link")
	image := flags.String("image", "", "a registry reference or oci:DIR:TAG; default: the demo's own Debian")
	command := flags.String("cmd", "", "what to run in it, as typed to a shell")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	opts := lab.Options{
		Name: args[0], Rate: *rate, Bin: *bin,
		Dir: filepath.Join(*cache, "run"), Tools: filepath.Join(*cache, "bin"),
	}
	switch args[0] {
	case "demo":
		_, err := demo.Play(ctx, demo.Options{
			Lab: opts, Image: *image, Command: *command,
			Images: filepath.Join(*cache, "images"), Out: os.Stdout,
		})
		return err
	case "containerd":
		return runContainerd(ctx, opts, *cache)
	case "ipfs":
		return runIPFS(ctx, opts, *cache)
	case "convert":
		return runConvert(ctx, *cache, *image)
	}
	return fmt.Errorf("no subcommand %q", args[0])
}
