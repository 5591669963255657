// Command convert rewrites an OCI or Docker image as an ipcs image.
//
// It wires the packages together and does nothing else: flags, the node, progress on
// standard error, signals and exit codes. What was made is told on standard output.
//
// Exit codes: 0 done, 1 an error or an image that is not proven, 2 wrong usage.
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

// smallHeap is what the program may take before it collects garbage more often than Go does
// by itself.
const smallHeap = 192 << 20

func main() {
	memory.Follow(smallHeap)
	command.Main("convert", rootCommand())
}

// longHelp is what --help begins with.
const longHelp = `convert reads the image SOURCE, puts what is in it on an IPFS node and writes the image
TARGET, which says how to find it there. The source stays as it is.

Without --mediatype, layers stay what they are: TARGET is SOURCE with the CIDs of its blobs in
the manifest, and their chunks are on the node. Whoever has the content store of ipcs pulls it
without a byte of its layers, and reads these from peers.

With --mediatype unixfs, the layers of TARGET name the files that are in them.

With --mediatype tar, SOURCE is such an image, and TARGET becomes the ordinary one that it
was made from: every layer's tar to the last bit, and the same config. With tar+gzip or
tar+zstd, layers are compressed.

--verify reads every byte of the image REF, of all platforms unless --platform names some,
and exits with 1 unless it is what its original was: each layer's tar has the original's
digest, and the layer shows nothing else. It prints the digest of the original's manifest:
that this is the image you mean, only you can tell.

With --keep-diff-ids, config and image ID stay as they are, but no diffID proves what a
layer shows. Snapshotters do not mount such an image lazily unless their daemon is told
allow_unverified_diff_ids, which says that all images come from someone trusted.

SOURCE and TARGET are one of
  HOST/NAME:TAG    in a registry, with the credentials of "docker login"
  oci:DIR[:TAG]    in an OCI layout folder; the tag defaults to latest
  containerd:REF   in containerd's image store
  ipfs:CID         on the node or its peers; as TARGET just ipfs:

With the target ipfs: no registry is needed. All of the image is put on the node, and the
CID that it has there is printed. Machines whose daemon has [registry] address set, and
gets at the node, pull it as HOST:PORT/ipfs/CID:latest from their own daemon.

The node is the one of the daemon on this host, if it runs. --ipfs-api names another, as a
Kubo, and --repo writes to a repository folder that no daemon uses.

A layer that the node converted before is not read again. The target is tagged last:
if anything fails it stays what it was.`

func rootCommand() *cobra.Command {
	var opts options
	cmd := &cobra.Command{
		Use: `convert [--mediatype chunked] SOURCE TARGET
  convert --mediatype unixfs SOURCE TARGET
  convert --mediatype tar SOURCE TARGET
  convert --verify REF`,
		Short: "rewrite an image so that its files come from IPFS peers, and back",
		Long:  longHelp,
		Example: `  # from a registry and back, on the node of the daemon
  convert --mediatype unixfs registry.example.com/app:1 registry.example.com/app:1-ipcs

  # the same layers as they are, for the content store
  convert registry.example.com/app:1 registry.example.com/app:1-chunked

  # on the Kubo that runs here
  convert --mediatype unixfs --ipfs-api auto registry.example.com/app:1 registry.example.com/app:1-ipcs

  # two platforms; the result is an index
  convert --mediatype unixfs --platform linux/amd64 --platform linux/arm64 \
      registry.example.com/debian:13 registry.example.com/debian:13-ipcs

  # without a daemon or a registry
  convert --mediatype unixfs --repo ./repo oci:./debian:latest oci:./debian:ipcs

  # without a registry: prints the CID of the image
  convert --mediatype unixfs oci:./debian:latest ipfs:

  # the ordinary image again, and whether an ipcs image is what it says
  convert --mediatype tar+gzip registry.example.com/app:1-ipcs registry.example.com/app:1-again
  convert --verify registry.example.com/app:1-ipcs

  # what containerd has already
  convert --mediatype unixfs containerd:registry.example.com/debian:13 containerd:registry.example.com/debian:ipcs`,
		Version:       command.Version(version),
		Args:          opts.arguments,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return run(cmd.Context(), opts, os.Stdout, os.Stderr)
		},
	}
	command.FlagErrors(cmd)
	opts.register(cmd.Flags())
	return cmd
}

// arguments takes SOURCE and TARGET, or REF. A wrong number is an error of usage.
func (o *options) arguments(_ *cobra.Command, args []string) error {
	switch {
	case o.verify && len(args) == 1:
		o.source = args[0]
	case o.verify:
		return fmt.Errorf("%w: want REF, not %d arguments; see --help", command.ErrUsage, len(args))
	case len(args) == 2:
		o.source, o.target = args[0], args[1]
	default:
		return fmt.Errorf("%w: want SOURCE and TARGET, not %d arguments; see --help", command.ErrUsage, len(args))
	}
	return nil
}
