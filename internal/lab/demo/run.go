package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"

	"github.com/hinshun/ipcs/internal/lab"
)

// longestRun is when a command is ended: one that waits for input would never be.
const longestRun = 5 * time.Minute

var errTooLong = fmt.Errorf("it did not end within %v", longestRun)

// A Run is one pull and one command on a fresh consumer.
type Run struct {
	Pull, Total time.Duration // from the start of the pull
	Received    int64         // on the consumer's link
	LayerBytes  int64         // of the image's layers in the registry
	// Of ipcs only: what was fetched, and the whole image.
	FetchedFiles, FetchedBytes int64
	Files, Bytes               int64
	Resident                   int64 // of the daemon, in bytes
}

// run pulls and runs ref with a snapshotter on a consumer with nothing on its disk.
func (s *stage) run(ctx context.Context, snapshotter, ref string, peers []string) (_ *Run, err error) {
	s.say("on the consumer: pull and run with %s", snapshotter)
	var daemon *lab.Daemon
	if peers != nil {
		if daemon, err = s.consumer.StartDaemon(ctx, lab.DaemonOptions{Peers: peers}); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, daemon.Stop()) }()
	}
	c, err := s.consumer.StartContainerd(ctx, lab.ContainerdOptions{Root: snapshotter + "-c", Daemon: daemon})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()
	syscall.Sync() // what the steps before wrote must not be written during this one
	if err := dropCaches(); err != nil {
		return nil, err
	}
	r := &Run{}
	if err := s.measure(ctx, c, r, snapshotter, ref); err != nil {
		err = fmt.Errorf("%w\n%s", err, c.Tail())
		if daemon != nil {
			err = fmt.Errorf("%w\n%s", err, daemon.Tail())
		}
		return nil, err
	}
	return r, s.inspect(ctx, c, daemon, r, ref)
}

// withoutRegistry does the same with no registry but the consumer's own daemon.
func (s *stage) withoutRegistry(ctx context.Context, peers []string) error {
	s.say("without a registry: convert to ipfs:, and pull from the consumer's own daemon")
	convert := s.publisher.Command(ctx, "convert", "--mediatype", "unixfs", "--plain-http", "--ipfs-api", s.daemon.API, s.original, "ipfs:")
	s.print("    # %s\n", shown(convert.Args))
	root, err := lab.Output(convert)
	if err != nil {
		return err
	}
	s.print("    %s", root)
	return s.anew(ctx, lab.DaemonOptions{Root: "own", Peers: peers, Registry: true}, func(daemon *lab.Daemon) string {
		return daemon.Registry + "/ipfs/" + strings.TrimSpace(root) + ":latest"
	})
}

// withoutPeers does it once more with nobody but the registry.
func (s *stage) withoutPeers(ctx context.Context) error {
	s.say("without peers: the publisher's node is stopped, and files come from the registry")
	if err := s.daemon.Stop(); err != nil {
		return err
	}
	return s.anew(ctx, lab.DaemonOptions{Root: "alone", Registries: []string{s.registry.Addr}}, func(*lab.Daemon) string { return s.converted })
}

// anew pulls and runs an image on a consumer with nothing on its disk.
func (s *stage) anew(ctx context.Context, opts lab.DaemonOptions, ref func(*lab.Daemon) string) (err error) {
	daemon, err := s.consumer.StartDaemon(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.Stop()) }()
	c, err := s.consumer.StartContainerd(ctx, lab.ContainerdOptions{Root: opts.Root + "-c", Daemon: daemon})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop(context.WithoutCancel(ctx))) }()
	if err := dropCaches(); err != nil {
		return err
	}
	if err := s.measure(ctx, c, &Run{}, "ipcs", ref(daemon)); err != nil {
		return fmt.Errorf("%w\n%s\n%s", err, c.Tail(), daemon.Tail())
	}
	return nil
}

// measure is what is timed: the two commands and nothing else.
func (s *stage) measure(ctx context.Context, c *lab.Containerd, r *Run, snapshotter, ref string) error {
	before, err := s.consumer.Received()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, longestRun, errTooLong)
	defer cancel()
	pull := c.Ctr(ctx, "image", "pull", "--plain-http", "--snapshotter", snapshotter, ref)
	run := c.Shell(ctx, fmt.Sprintf("ctr run --rm --snapshotter %s %s demo-%d %s", snapshotter, ref, os.Getpid(), s.opts.Command))
	s.print("    # %s\n    # %s\n", shown(pull.Args), shown(run.Args))
	start := time.Now()
	if _, err := lab.Output(pull); err != nil {
		return err
	}
	r.Pull = time.Since(start)
	out, err := lab.Output(run)
	if err != nil {
		return errors.Join(err, context.Cause(ctx))
	}
	r.Total = time.Since(start)
	after, err := s.consumer.Received()
	if err != nil {
		return err
	}
	r.Received = after - before
	s.print("%s    pulled after %.2f s, done after %.2f s\n", out, r.Pull.Seconds(), r.Total.Seconds())
	return nil
}

// inspect asks, after the run, how large the image is and what was fetched of it.
func (s *stage) inspect(ctx context.Context, c *lab.Containerd, daemon *lab.Daemon, r *Run, ref string) error {
	ctx = c.Context(ctx)
	img, err := c.Client.GetImage(ctx, ref)
	if err != nil {
		return err
	}
	manifest, err := images.Manifest(ctx, c.Client.ContentStore(), img.Target(), platforms.Default())
	if err != nil {
		return err
	}
	for _, l := range manifest.Layers {
		r.LayerBytes += l.Size
	}
	if daemon == nil {
		return nil
	}
	status, err := daemon.Status(ctx)
	if err != nil {
		return err
	}
	if r.Resident, err = daemon.Resident(); err != nil {
		return err
	}
	r.FetchedFiles, r.FetchedBytes = status.Fetch.Files, status.Fetch.Bytes
	for _, chain := range status.Chains {
		r.Files, r.Bytes = max(r.Files, int64(chain.Files)), max(r.Bytes, chain.Bytes)
	}
	return nil
}

// Print prints both runs side by side.
func (r *Result) Print(w io.Writer) {
	o, i := r.Overlayfs, r.Ipcs
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	row := func(name, overlayfs, ipcs, ratio string) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", name, overlayfs, ipcs, ratio)
	}
	ratio := func(a, b float64) string { return fmt.Sprintf("%.2f", a/b) }
	fmt.Fprintf(w, "\n%s at %d Mbit/s\n\n", r.Image, r.Rate)
	row("", "overlayfs", "ipcs", "ipcs/overlayfs")
	row("layers in the registry", size(o.LayerBytes), size(i.LayerBytes), "")
	row("pull", seconds(o.Pull), seconds(i.Pull), ratio(i.Pull.Seconds(), o.Pull.Seconds()))
	row("start of pull to end of command", seconds(o.Total), seconds(i.Total), ratio(i.Total.Seconds(), o.Total.Seconds()))
	row("received by the consumer", size(o.Received), size(i.Received), ratio(float64(i.Received), float64(o.Received)))
	row("files fetched", "all", fmt.Sprintf("%d of %d", i.FetchedFiles, i.Files), "")
	row("bytes of files fetched", "all", fmt.Sprintf("%s of %s", size(i.FetchedBytes), size(i.Bytes)), "")
	row("daemon's resident memory", "", fmt.Sprintf("%.0f MiB", float64(i.Resident)/(1<<20)), "")
	t.Flush()
	fmt.Fprintln(w)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func size(n int64) string {
	if n < 100_000 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}
