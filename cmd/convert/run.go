package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/hinshun/ipcs/internal/command"
	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/nodes"
	"github.com/hinshun/ipcs/internal/profile"
	"github.com/hinshun/ipcs/layer"
)

// options are what the command line says.
type options struct {
	source, target string
	mediatype      string
	node           nodes.Options
	access         convert.Access
	platforms      []string
	allPlatforms   bool
	peers          []string
	profile        string // file
	fill           string
	seeds          string // true or false; empty: where they are of use
	since          string // reference
	withOriginal   bool
	keepDiffIDs    bool
	rootDigests    bool
	verify         bool
	workers        int
	json           bool
	pprof          string // folder for profiles of the run
}

func (o *options) register(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVar(&o.mediatype, "mediatype", "", "what becomes of the layers: unixfs for an ipcs image; chunked for the same blobs, which peers have in chunks (default); tar, tar+gzip or tar+zstd for an ordinary one again")
	flags.BoolVar(&o.verify, "verify", false, "prove that the ipcs image REF is what it was made from, and write nothing")
	o.node.Register(flags)
	flags.StringArrayVar(&o.platforms, "platform", nil, "`platform` to take, such as linux/arm64; repeatable (default this host's, and all with --verify)")
	flags.BoolVar(&o.allPlatforms, "all-platforms", false, "take all platforms of the source")
	flags.StringArrayVar(&o.peers, "peer-hint", nil, "`multiaddr` of a peer that has the files, to be written into the image; repeatable; none for none (default the node's own addresses, if it listens on any but those of its host)")
	flags.StringVar(&o.profile, "profile", "", "`file` with the profile of the image (\"ipcs-snapshotter profile export\"), to be written into the image")
	flags.StringVar(&o.fill, "fill", "", "`true or false`: whether hosts should fetch all files of the image when a container uses it (default as they are configured)")
	flags.StringVar(&o.seeds, "seeds", "", "`true or false`: whether the files of the image are written beside it as well, so that hosts read them from there when no peer has them (default true for registries and folders)")
	flags.Lookup("seeds").NoOptDefVal = "true"
	flags.StringVar(&o.since, "since", "", "`image` of yours in the target's registry, such as the version before: what its seeds have is not written again")
	flags.BoolVar(&o.withOriginal, "with-original", false, "copy SOURCE to TARGET as well, so that hosts without ipcs run the same tag; those with it pull the ipcs image by its digest")
	flags.BoolVar(&o.rootDigests, "root-digests", false, "write manifests whose digests are those of roots, as in 2019; for containerd: on the content store of ipcs")
	flags.BoolVar(&o.keepDiffIDs, "keep-diff-ids", false, "leave the config, and so the image ID, as they are; see above for what that costs")
	flags.BoolVar(&o.access.PlainHTTP, "plain-http", false, "speak plain HTTP to registries (always done on this host)")
	flags.StringVar(&o.access.ContainerdAddress, "containerd-address", "/run/containerd/containerd.sock", "containerd's `socket`")
	flags.StringVar(&o.access.Namespace, "namespace", "default", "containerd's namespace")
	flags.IntVar(&o.workers, "workers", 0, "layers to convert at the same time (default one for each core)")
	flags.BoolVar(&o.json, "json", false, "print what was made as one JSON object, and no progress")
	flags.StringVar(&o.pprof, "pprof", "", "write CPU, allocation and blocking profiles of this run into `DIR`")
}

// run does what the command line says, and prints what was made to stdout.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if err := o.check(); err != nil {
		return fmt.Errorf("%w: %w", command.ErrUsage, err)
	}
	opts := convert.Options{
		AllPlatforms: o.allPlatforms, Peers: o.peers, Fill: o.fill, Seeds: o.writesSeeds(), WithOriginal: o.withOriginal, KeepDiffIDs: o.keepDiffIDs,
		RootDigests: o.rootDigests, Compression: compressions[o.mediatype], Workers: o.workers,
	}
	if opts.Platforms, err = convert.ParsePlatforms(o.platforms); err != nil {
		return fmt.Errorf("%w: %w", command.ErrUsage, err)
	}
	if opts.Profile, err = readProfile(o.profile); err != nil {
		return err
	}
	stop, err := profile.Start(o.pprof)
	if err != nil {
		return err
	}
	var opened closers
	opened.add(stop)
	defer func() { err = errors.Join(err, opened.close()) }()
	if err := o.open(ctx, &opts, &opened); err != nil {
		return err
	}
	if opts.Peers, err = o.peerHints(ctx, opts.Node); err != nil {
		return err
	}
	progress := newProgress(stderr, o.json)
	opts.Progress = progress
	if !o.verify && convert.Same(o.source, o.target) {
		progress.Note("source and target are the same: the tag will be moved to the converted image")
	}
	switch {
	case o.verify:
		report, err := convert.Verify(ctx, opts)
		progress.Close()
		return errors.Join(err, o.printVerified(stdout, report))
	case o.mediatype == chunked:
		report, err := convert.Chunked(ctx, opts)
		progress.Close()
		return errors.Join(err, o.print(stdout, report))
	case o.mediatype == "unixfs":
		report, err := convert.Image(ctx, opts)
		if err == nil && report.Cid != "" && !o.json {
			progress.Note(fmt.Sprintf(howToPull, report.Cid))
		}
		if err == nil && o.withOriginal && !o.json {
			for _, m := range report.Manifests {
				progress.Note(fmt.Sprintf("hosts with ipcs pull the image of %s by its digest, %s", m.Platform, m.Digest))
			}
		}
		progress.Close()
		return errors.Join(err, o.print(stdout, report))
	default:
		report, err := convert.Restore(ctx, opts)
		progress.Close()
		return errors.Join(err, o.print(stdout, report))
	}
}

// howToPull says what to do with a CID.
const howToPull = `machines whose ipcs-snapshotter gets at this node, and has --registry-address 127.0.0.1:5050, pull it with
  ctr image pull --snapshotter ipcs 127.0.0.1:5050/ipfs/%s:latest`

// readProfile reads a profile from a file, and returns nil for none.
func readProfile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read profile: %w", err)
	}
	if _, err := layer.DecodeProfile(b); err != nil {
		return nil, fmt.Errorf("%s: %w; \"ipcs-snapshotter profile export\" writes one", path, err)
	}
	return b, nil
}

// closers close what was opened, the last first.
type closers []func() error

func (c *closers) add(f func() error) { *c = append(*c, f) }

func (c closers) close() error {
	var err error
	for i := len(c) - 1; i >= 0; i-- {
		err = errors.Join(err, c[i]())
	}
	return err
}

// open opens source, target and node.
func (o *options) open(ctx context.Context, opts *convert.Options, opened *closers) error {
	// What is closed must be closed also after an interrupt.
	last := context.WithoutCancel(ctx)
	source, err := o.access.OpenSource(ctx, o.source)
	if err != nil {
		return usageError(err)
	}
	opts.Source = source
	opened.add(func() error { return source.Close(last) })
	if !o.verify {
		target, err := o.access.OpenTarget(ctx, o.target)
		if err != nil {
			return usageError(err)
		}
		opts.Target = target
		opened.add(func() error { return target.Close(last) })
	}
	if o.since != "" {
		since, err := o.access.OpenSource(ctx, o.since)
		if err != nil {
			return usageError(err)
		}
		opts.Since = since
		opened.add(func() error { return since.Close(last) })
	}
	node, err := nodes.Open(ctx, o.node)
	if err != nil {
		return err
	}
	opts.Node = node
	opened.add(node.Close)
	return nil
}

// chunked is the --mediatype of blobs that stay what they are.
const chunked = "chunked"

// compressions of what --mediatype names.
var compressions = map[string]string{
	chunked: convert.None, "unixfs": convert.None, "tar": convert.None, "tar+gzip": convert.Gzip, "tar+zstd": convert.Zstd,
}

func (o *options) check() error {
	if o.mediatype == "" && !o.verify {
		o.mediatype = chunked
	}
	_, known := compressions[o.mediatype]
	switch {
	case o.verify && o.mediatype != "":
		return errors.New("--verify and --mediatype exclude each other")
	case !known && !o.verify:
		return fmt.Errorf("--mediatype %s is not known; pass unixfs, chunked, tar, tar+gzip or tar+zstd", o.mediatype)
	case o.mediatype != "unixfs" && (o.keepDiffIDs || len(o.peers) > 0 || o.profile != "" || o.fill != "" || o.seeds != "" || o.withOriginal):
		return errors.New("--keep-diff-ids, --peer-hint, --profile, --fill, --seeds and --with-original are for --mediatype unixfs")
	case o.rootDigests && o.mediatype != chunked:
		return errors.New("--root-digests is for --mediatype chunked")
	case o.mediatype != "unixfs" && strings.HasPrefix(o.target, "ipfs:"):
		return errors.New("ipfs: takes ipcs images: pass --mediatype unixfs")
	case (o.seeds == "true" || o.withOriginal) && strings.HasPrefix(o.target, "ipfs:"):
		return errors.New("--seeds and --with-original are for registries and folders: with the target ipfs:, all of the image is on the node")
	case o.since != "" && !o.writesSeeds():
		return errors.New("--since is for images with seeds")
	case o.fill != "" && o.fill != "true" && o.fill != "false":
		return errors.New("--fill is true or false")
	case o.seeds != "" && o.seeds != "true" && o.seeds != "false":
		return errors.New("--seeds is true or false")
	case o.allPlatforms && len(o.platforms) > 0:
		return errors.New("--platform and --all-platforms exclude each other")
	case o.node.API != "" && o.node.Repo != "":
		return errors.New("--ipfs-api and --repo exclude each other")
	case o.workers < 0:
		return errors.New("--workers is negative")
	}
	if o.noPeers() {
		return nil
	}
	return convert.CheckPeers(o.peers)
}

// writesSeeds says whether the image's files are written beside it: in registries and folders, where others look.
func (o *options) writesSeeds() bool {
	if o.seeds != "" {
		return o.seeds == "true"
	}
	return o.mediatype == "unixfs" && !strings.HasPrefix(o.target, "ipfs:") && !strings.HasPrefix(o.target, "containerd:")
}

// noPeers says whether no peers are to be written into the image.
func (o *options) noPeers() bool { return len(o.peers) == 1 && o.peers[0] == "none" }

// peerHints are the peers to write into the image: those that were named, or the node itself where
// others can reach it.
func (o *options) peerHints(ctx context.Context, node convert.Node) ([]string, error) {
	listens, ok := node.(interface {
		Addrs(ctx context.Context) ([]string, error)
	})
	switch {
	case o.noPeers() || o.mediatype != "unixfs":
		return nil, nil
	case len(o.peers) > 0 || !ok:
		return o.peers, nil
	}
	addrs, err := listens.Addrs(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w; --peer-hint says where others find the image, or none", err)
	}
	return convert.OwnPeers(addrs), nil
}

// usageError marks errors that a reference on the command line is to blame for.
func usageError(err error) error {
	if errors.Is(err, convert.ErrReference) {
		return fmt.Errorf("%w: %w", command.ErrUsage, err)
	}
	return err
}

func (o *options) print(w io.Writer, report *convert.Report) error {
	if report == nil {
		return nil // there is an error to tell
	}
	if o.json {
		return printJSON(w, report)
	}
	line := report.Target + " " + report.Digest.String()
	if report.Cid != "" {
		line = report.Cid // all that anybody needs
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// printVerified prints a line for each manifest and each layer.
func (o *options) printVerified(w io.Writer, report *convert.VerifyReport) error {
	if report == nil {
		return nil // there is an error to tell
	}
	if o.json {
		return printJSON(w, report)
	}
	var err error
	line := func(what, found, bad string) {
		if bad != "" {
			found = "NOT PROVEN: " + strings.ReplaceAll(command.Printable(bad), "\n", "; ")
		}
		_, werr := fmt.Fprintf(w, "%s %s\n", what, found)
		err = errors.Join(err, werr)
	}
	for _, m := range report.Manifests {
		line("manifest "+m.Digest.String(), "made from "+m.Original.String(), m.Error)
		for _, l := range m.Layers {
			line("layer "+l.Digest.String(), fmt.Sprintf("gives the tar %s, %s", l.DiffID, mebibytes(l.Bytes)), l.Error)
		}
	}
	return err
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
