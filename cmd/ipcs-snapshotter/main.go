// Command ipcs-snapshotter is the daemon of ipcs: containerd's remote snapshotter
// "ipcs" and its differ "ipcs-diff", an embedded IPFS node, the part of Kubo's RPC that
// convert needs, and a read-only registry for images that are on IPFS.
//
// It wires the packages together and does nothing else: flags and configuration,
// the order of start and stop, signals and exit codes. It stops in the reverse order
// of its start: servers, then mounts, then the node, then the disk.
//
// Exit codes: 0 stopped as asked, 1 an error, 2 wrong usage.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/command"
)

// version is set by the Makefile.
var version = "devel"

// errUsage marks errors of the command line, which exit with 2.
var errUsage = command.ErrUsage

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(exitCode(rootCommand().ExecuteContext(ctx)))
}

func exitCode(err error) int { return command.ExitCode("ipcs-snapshotter", err) }

func rootCommand() *cobra.Command {
	var flags daemonFlags
	cmd := &cobra.Command{
		Use:   "ipcs-snapshotter",
		Short: "containerd's remote snapshotter for ipcs images",
		Long: `ipcs-snapshotter gives containerd the root file system of an ipcs image at once, and
fetches a file from IPFS peers the first time it is read.

It runs as root in the foreground, and is ready when "ipcs-snapshotter status" says so.`,
		Example: `  # with the defaults, or what /etc/ipcs/config.toml says
  ipcs-snapshotter

  # a node that others can reach, and one that it knows
  ipcs-snapshotter --listen /ip4/10.0.0.2/tcp/4001 --peer /ip4/10.0.0.1/tcp/4001/p2p/12D3KooW…

  # what was fetched may take 50 GB of the disk
  ipcs-snapshotter --store-limit 50GB

  # images on IPFS are pulled from it: ctr image pull --snapshotter ipcs 127.0.0.1:5050/ipfs/CID:latest
  ipcs-snapshotter --registry-address 127.0.0.1:5050

  # is it ready? who is it? what has it fetched?
  ipcs-snapshotter status --wait 30s`,
		Version:       buildVersion(),
		Args:          usageArgs(cobra.NoArgs),
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.config(cmd.Flags())
			if err != nil {
				return err
			}
			return run(cmd.Context(), cfg)
		},
	}
	command.FlagErrors(cmd)
	flags.register(cmd)
	cmd.AddCommand(statusCommand(&flags), fetchCommand(&flags), checkCommand(&flags), profileCommand(&flags), relayCommand(), imagesCommand())
	return cmd
}

// usageArgs makes a wrong number of arguments an error of usage.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %w; see --help", errUsage, err)
		}
		return nil
	}
}

func buildVersion() string { return command.Version(version) }
