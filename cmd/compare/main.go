// Command compare says what images share, and what that saves.
//
// It wires the packages together and does nothing else: flags, the node, progress on standard error, signals and exit codes. The report goes to standard output.
//
// Exit codes: 0 done, 1 an error or an image that was left out, 2 wrong usage.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hinshun/ipcs/internal/command"
	"github.com/hinshun/ipcs/internal/memory"
)

// version is set by the Makefile.
var version = "devel"

// smallHeap is what the program may take before it collects garbage more often than Go does by itself.
const smallHeap = 64 << 20

func main() {
	memory.Follow(smallHeap)
	command.Main("compare", rootCommand())
}

const longHelp = `compare says what images share: by compressed layer, by layer, by file and by block; what it takes to
pull one where another is, from a registry and with ipcs; and what all of them take on one host.

Nothing has to be converted first. REF is one of
  HOST/NAME:TAG    in a registry, with the credentials of "docker login"
  oci:DIR[:TAG]    in an OCI layout folder; the tag defaults to latest
  containerd:REF   in containerd's image store
  ipfs:CID         on the node or its peers
and an ordinary image or an ipcs image. Layers of ordinary images are read once, to the end, and what is
known of them is kept in a cache; of ipcs images only the indexes are read, and no file's data.

The node, for ipcs images, is the one of the daemon on this host, if it runs. --ipfs-api names another,
and --repo a repository folder that no daemon uses.`

func rootCommand() *cobra.Command {
	var opts options
	cmd := &cobra.Command{
		Use:   "compare REF REF…",
		Short: "what images share, and what that saves",
		Long:  longHelp,
		Example: `  # two versions, from a registry
  compare registry.example.com/app:1 registry.example.com/app:2

  # a page with charts, and figures for a program
  compare --html report.html --json oci:./debian oci:./python oci:./node >report.json

  # whatever can be read of a list
  compare --keep-going $(cat images.txt)`,
		Version: command.Version(version),
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%w: no image is named; see --help", command.ErrUsage)
			}
			opts.refs = args
			return nil
		},
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.pageGiven = cmd.Flags().Changed("html")
			return run(cmd.Context(), opts, os.Stdout, os.Stderr)
		},
	}
	command.FlagErrors(cmd)
	opts.register(cmd.Flags())
	return cmd
}
