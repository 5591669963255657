package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/hinshun/ipcs/internal/command"
	"github.com/hinshun/ipcs/internal/compare"
	"github.com/hinshun/ipcs/internal/convert"
	"github.com/hinshun/ipcs/internal/nodes"
	"github.com/hinshun/ipcs/internal/profile"
)

// cacheBytes is how much is kept of what is known of layers: what was not used for longest goes.
const cacheBytes = 2 << 30

// errLeftOut says that the report is not of all images.
var errLeftOut = errors.New("images were left out: the report says which, and why")

type options struct {
	refs      []string
	access    convert.Access
	node      nodes.Options
	platforms []string
	json, csv bool
	html      string
	pageGiven bool // html, whatever it is
	keepGoing bool
	cache     string
	noCache   bool
	workers   int
	color     string
	pprof     string
}

func (o *options) register(flags *pflag.FlagSet) {
	flags.BoolVar(&o.json, "json", false, "print the report as one JSON object (docs/compare.md), and no progress")
	flags.BoolVar(&o.csv, "csv", false, "print what any two images share, as a table of comma-separated values, and no progress")
	flags.StringVar(&o.html, "html", "", "write a page with charts into `FILE`, besides")
	flags.StringArrayVar(&o.platforms, "platform", nil, "`platform` to take of indexes, such as linux/arm64 (repeatable: each is an image of its own; default: that of this host)")
	flags.BoolVar(&o.keepGoing, "keep-going", false, "leave out images that cannot be read, say so, and exit with 1")
	flags.BoolVar(&o.access.PlainHTTP, "plain-http", false, "speak HTTP to registries also where they are not on this host")
	flags.StringVar(&o.access.ContainerdAddress, "containerd-address", "/run/containerd/containerd.sock", "containerd's `socket`")
	flags.StringVarP(&o.access.Namespace, "namespace", "n", "default", "containerd's `namespace` of containerd:REF")
	o.node.Register(flags)
	flags.StringVar(&o.cache, "cache", "", "`folder` for what is known of layers (default ipcs/compare in the user's folder of caches; 2 GiB at most)")
	flags.BoolVar(&o.noCache, "no-cache", false, "keep nothing for the next time")
	flags.IntVar(&o.workers, "workers", 0, "layers that are read at a time (default: one for each core, four at most)")
	flags.StringVar(&o.color, "color", "auto", "color on a terminal: auto, always or never")
	flags.StringVar(&o.pprof, "pprof", "", "write CPU, allocation and blocking profiles of this run into `DIR`")
}

func (o *options) check() error {
	switch {
	case o.pageGiven && (o.html == "" || strings.HasPrefix(o.html, "-")):
		return errors.New("--html wants the name of a file")
	case o.json && o.csv:
		return errors.New("--json and --csv exclude each other")
	case o.noCache && o.cache != "":
		return errors.New("--cache and --no-cache exclude each other")
	case o.node.API != "" && o.node.Repo != "":
		return errors.New("--ipfs-api and --repo exclude each other")
	case o.workers < 0:
		return errors.New("--workers is negative")
	case !slices.Contains([]string{"auto", "always", "never"}, o.color):
		return errors.New("--color is auto, always or never")
	}
	return nil
}

// run does what the command line says.
func run(ctx context.Context, o options, stdout, stderr io.Writer) (err error) {
	if err := o.check(); err != nil {
		return fmt.Errorf("%w: %w", command.ErrUsage, err)
	}
	opts := compare.Options{Refs: o.refs, KeepGoing: o.keepGoing, Workers: o.workers, Open: func(ctx context.Context, ref string) (convert.Source, error) {
		return o.access.OpenSource(ctx, ref)
	}}
	if opts.Platforms, err = convert.ParsePlatforms(o.platforms); err != nil {
		return fmt.Errorf("%w: %w", command.ErrUsage, err)
	}
	if opts.Cache, err = o.openCache(); err != nil {
		return err
	}
	var opened []io.Closer // nodes: one at most
	defer func() {
		for _, node := range opened {
			err = errors.Join(err, node.Close())
		}
	}()
	stop, err := profile.Start(o.pprof)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	opts.Node = func(ctx context.Context) (convert.Node, error) {
		node, err := nodes.Open(ctx, o.node)
		if err == nil {
			opened = append(opened, node)
		}
		return node, err
	}
	var page *os.File // before all is read: a path that is none costs nothing then
	if o.html != "" {
		if page, err = createPage(o.html); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, ignoreGone(os.Remove(page.Name()))) }()
	}
	progress := newProgress(stderr, o.json || o.csv)
	opts.Progress = progress
	report, err := compare.Compare(ctx, opts)
	progress.Close()
	if err != nil {
		return usageError(err)
	}
	if opts.Cache != nil {
		err = opts.Cache.Prune(cacheBytes)
	}
	if err = errors.Join(err, o.write(report, stdout, page)); err == nil && len(report.Failed) > 0 {
		err = errLeftOut
	}
	return err
}

// usageError marks what is wrong with a reference.
func usageError(err error) error {
	if errors.Is(err, convert.ErrReference) {
		return fmt.Errorf("%w: %w", command.ErrUsage, err)
	}
	return err
}

// openCache returns the cache: nil if there is to be none, or no folder for it.
func (o *options) openCache() (*compare.Cache, error) {
	if o.noCache {
		return nil, nil
	}
	if o.cache != "" {
		return compare.NewCache(o.cache), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil, nil // as a service, there may be no home
	}
	return compare.NewCache(filepath.Join(dir, "ipcs", "compare")), nil
}

// write writes the report as it is wanted, and the page if there is to be one.
func (o *options) write(report *compare.Report, stdout io.Writer, page *os.File) error {
	var errs []error
	switch {
	case o.json:
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		errs = append(errs, enc.Encode(report))
	case o.csv:
		errs = append(errs, report.WriteCSV(stdout))
	default:
		errs = append(errs, report.WriteText(stdout, o.style(stdout)))
	}
	if page != nil {
		errs = append(errs, writePage(page, o.html, report))
	}
	return errors.Join(errs...)
}

// style is that of the terminal, if there is one.
func (o *options) style(w io.Writer) compare.Style {
	style := compare.Style{Color: o.color == "always"}
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return style
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil {
		style.Width = width
	}
	style.Color = style.Color || o.color == "auto" && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return style
}

// createPage creates a file beside the one that the page is to become, so that this is there as a whole, or as it was.
func createPage(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil, fmt.Errorf("--html %s: it is a folder", path)
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), ".compare-"+rand.Text()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o666)
	if err != nil {
		var failed *fs.PathError
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return nil, fmt.Errorf("--html %s: %w", path, err)
	}
	return f, nil
}

// writePage writes the page. What is there and is no regular file, such as a device or a link, is written to.
func writePage(f *os.File, path string, report *compare.Report) error {
	err := errors.Join(report.WriteHTML(f), f.Close())
	if err != nil {
		return err
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().IsRegular() {
		return os.Rename(f.Name(), path)
	}
	text, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o666)
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
