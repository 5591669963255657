// Command convert rewrites an OCI or Docker image as an ipcs image.
//
// It wires the packages together and does nothing else: flags, the node, progress on
// standard error, signals and exit codes. What was made is told on standard output.
//
// Exit codes: 0 converted, 1 an error, 2 wrong usage.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the Makefile.
var version = "devel"

// errUsage marks errors of the command line, which exit with 2.
var errUsage = errors.New("usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the program at once.
	context.AfterFunc(ctx, stop)
	err := rootCommand().ExecuteContext(ctx)
	interrupted := ctx.Err() != nil
	stop()
	os.Exit(exitCode(err, interrupted))
}

func exitCode(err error, interrupted bool) int {
	if err == nil {
		return 0
	}
	if interrupted {
		err = fmt.Errorf("interrupted: %w", err)
	}
	fmt.Fprintln(os.Stderr, "convert:", err)
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

func rootCommand() *cobra.Command {
	var opts options
	cmd := &cobra.Command{
		Use:   "convert --mediatype unixfs SOURCE TARGET",
		Short: "rewrite an image so that its files come from IPFS peers",
		Long: `convert reads the image SOURCE, puts its files on an IPFS node and writes the image
TARGET, whose layers name those files. The source stays as it is.

SOURCE and TARGET are one of
  HOST/NAME:TAG    in a registry, with the credentials of "docker login"
  oci:DIR[:TAG]    in an OCI layout folder; the tag defaults to latest
  containerd:REF   in containerd's image store

The node is the one of the daemon on this host, if it runs. --ipfs-api names another,
and --repo writes to a repository folder that no daemon uses.

A layer that the node converted before is not read again. The target is tagged last:
if anything fails it stays what it was.`,
		Example: `  # from a registry and back, on the node of the daemon
  convert --mediatype unixfs registry.example.com/app:1 registry.example.com/app:1-ipcs

  # two platforms; the result is an index
  convert --mediatype unixfs --platform linux/amd64 --platform linux/arm64 \
      registry.example.com/debian:13 registry.example.com/debian:13-ipcs

  # without a daemon or a registry
  convert --mediatype unixfs --repo ./repo oci:./debian:latest oci:./debian:ipcs

  # what containerd has already
  convert --mediatype unixfs containerd:registry.example.com/debian:13 containerd:registry.example.com/debian:ipcs`,
		Version:       buildVersion(),
		Args:          usageArgs(cobra.ExactArgs(2)),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.source, opts.target = args[0], args[1]
			return run(cmd.Context(), opts, os.Stdout, os.Stderr)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see --help", errUsage, err)
	})
	opts.register(cmd.Flags())
	return cmd
}

// usageArgs makes a wrong number of arguments an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: want SOURCE and TARGET, not %d arguments; see --help", errUsage, len(args))
		}
		return nil
	}
}

func buildVersion() string {
	if version != "devel" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return version
}
