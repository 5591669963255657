package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"

	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/profile"
)

// options are what the command line says.
type options struct {
	source, target string
	mediatype      string
	node           nodeOptions
	access         convert.Access
	platforms      []string
	allPlatforms   bool
	peers          []string
	workers        int
	json           bool
	pprof          string // folder for profiles of the run
}

func (o *options) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&o.mediatype, "mediatype", "", "what becomes of the layers; only unixfs is there yet")
	flags.StringVar(&o.node.api, "ipfs-api", "", "`address` of an IPFS node: /unix/PATH, a multiaddr or a URL (default "+daemonSocket+" if it is there)")
	flags.StringVar(&o.node.repo, "repo", "", "repository `folder` to write to without a daemon")
	flags.StringArrayVar(&o.platforms, "platform", nil, "`platform` to convert, such as linux/arm64; repeatable (default this host's)")
	flags.BoolVar(&o.allPlatforms, "all-platforms", false, "convert all platforms of the source")
	flags.StringArrayVar(&o.peers, "peer-hint", nil, "`multiaddr` of a peer that has the files, to be written into the image; repeatable")
	flags.BoolVar(&o.access.PlainHTTP, "plain-http", false, "speak plain HTTP to registries (always done on this host)")
	flags.StringVar(&o.access.ContainerdAddress, "containerd-address", "/run/containerd/containerd.sock", "containerd's `socket`")
	flags.StringVar(&o.access.Namespace, "namespace", "default", "containerd's namespace")
	flags.IntVar(&o.workers, "workers", 0, "layers to convert at the same time (default one for each core)")
	flags.BoolVar(&o.json, "json", false, "print what was made as one JSON object, and no progress")
	flags.StringVar(&o.pprof, "pprof", "", "write CPU, allocation and blocking profiles of this run into `DIR`")
}

// run converts, and prints what was made to stdout.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if err := o.check(); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	platforms, err := convert.ParsePlatforms(o.platforms)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	stop, err := profile.Start(o.pprof)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	source, err := o.access.OpenSource(ctx, o.source)
	if err != nil {
		return usageError(err)
	}
	// What is closed must be closed also after an interrupt.
	last := context.WithoutCancel(ctx)
	defer func() { err = errors.Join(err, source.Close(last)) }()
	target, err := o.access.OpenTarget(ctx, o.target)
	if err != nil {
		return usageError(err)
	}
	defer func() { err = errors.Join(err, target.Close(last)) }()
	node, err := openNode(ctx, o.node)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, node.Close()) }()

	progress := newProgress(stderr, o.json)
	if convert.Same(o.source, o.target) {
		progress.Note("source and target are the same: the tag will be moved to the converted image")
	}
	report, err := convert.Image(ctx, convert.Options{
		Source: source, Target: target, Node: node,
		Platforms: platforms, AllPlatforms: o.allPlatforms,
		Peers: o.peers, Workers: o.workers, Progress: progress,
	})
	progress.Close()
	if err != nil {
		return err
	}
	return o.print(stdout, report)
}

func (o *options) check() error {
	switch {
	case o.mediatype == "":
		return errors.New("--mediatype is missing: chunked blobs, which will be the default, are not there yet; pass --mediatype unixfs")
	case o.mediatype != "unixfs":
		return fmt.Errorf("--mediatype %s is not known; pass --mediatype unixfs", o.mediatype)
	case o.allPlatforms && len(o.platforms) > 0:
		return errors.New("--platform and --all-platforms exclude each other")
	case o.node.api != "" && o.node.repo != "":
		return errors.New("--ipfs-api and --repo exclude each other")
	case o.workers < 0:
		return errors.New("--workers is negative")
	}
	return convert.CheckPeers(o.peers)
}

// usageError marks errors that a reference on the command line is to blame for.
func usageError(err error) error {
	if errors.Is(err, convert.ErrReference) {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return err
}

func (o *options) print(w io.Writer, report *convert.Report) error {
	if o.json {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return enc.Encode(report)
	}
	_, err := fmt.Fprintf(w, "%s %s\n", report.Target, report.Digest)
	return err
}
