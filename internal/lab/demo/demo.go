// Package demo shows ipcs at work: an image is converted on one machine and run on
// another, beside the original image on containerd's overlayfs.
//
// The machines are those of package lab: a registry, a publisher and a consumer, with
// links of a given rate. Each of the two runs on the consumer has a containerd (and a
// daemon) with a root of its own, starts with the page cache dropped, and uses nothing
// but ctr. Every step is printed with the command that a user would type.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"strings"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
)

// DefaultCommand is what the demo runs in its own image: a start of Python with the
// libraries that a small service loads.
const DefaultCommand = `python3 -c 'import json, ssl, sqlite3'`

// Options say what to show.
type Options struct {
	Lab     lab.Options
	Image   string // "oci:DIR:TAG" or a registry reference; "" for the demo's own
	Command string // as typed to a shell; "" for that of the demo's own image
	Images  string // folder that the demo's own image is kept in
	Out     io.Writer
}

// Result holds what the two runs took.
type Result struct {
	Image           string
	Rate            int
	Overlayfs, Ipcs *Run
}

// stage is the demo's machines.
type stage struct {
	opts      Options
	lab       *lab.Lab
	registry  *lab.Registry
	store     *lab.Machine // of the registry
	publisher *lab.Machine
	consumer  *lab.Machine
	daemon    *lab.Daemon // the publisher's

	original, converted string // references
}

// Play runs the demo and prints its table.
func Play(ctx context.Context, opts Options) (*Result, error) {
	if opts.Image != "" && opts.Command == "" {
		// The image's own command may be a shell, which waits for input.
		return nil, errors.New("say what to run in the image: make demo IMAGE=… CMD='…' (something that ends)")
	}
	s := &stage{opts: opts}
	if err := s.source(ctx); err != nil {
		return nil, err
	}
	l, err := lab.Open(ctx, opts.Lab)
	if err != nil {
		return nil, err
	}
	s.lab = l
	result, err := s.play(ctx)
	s.say("stop everything, unmount, remove")
	if err := errors.Join(err, l.Close(), l.Leftovers()); err != nil {
		return nil, err
	}
	s.print("    nothing left running or mounted\n")
	result.Print(opts.Out)
	return result, nil
}

func (s *stage) play(ctx context.Context) (*Result, error) {
	if err := s.publish(ctx); err != nil {
		return nil, err
	}
	peers, err := s.daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	result := &Result{Image: s.opts.Image, Rate: s.opts.Lab.Rate}
	if result.Overlayfs, err = s.run(ctx, "overlayfs", s.original, nil); err != nil {
		return nil, err
	}
	if result.Ipcs, err = s.run(ctx, "ipcs", s.converted, peers.Addrs); err != nil {
		return nil, err
	}
	if err := s.withoutRegistry(ctx, peers.Addrs); err != nil {
		return nil, err
	}
	return result, s.withoutPeers(ctx)
}

// source finds the image, or makes it.
func (s *stage) source(ctx context.Context) error {
	if s.opts.Image != "" {
		return nil
	}
	layout, err := images.Ensure(ctx, s.opts.Images, "debian", func(format string, args ...any) {
		s.print("    "+format+"\n", args...)
	})
	if err != nil {
		return err
	}
	s.opts.Image = "oci:" + layout + ":" + images.Tag
	if s.opts.Command == "" {
		s.opts.Command = DefaultCommand
	}
	return nil
}

// publish makes the machines, puts the original image into the registry, and converts
// it on the publisher.
func (s *stage) publish(ctx context.Context) error {
	s.say("three machines, %d Mbit/s each: a registry, a publisher and a consumer", s.opts.Lab.Rate)
	var err error
	for _, m := range []struct {
		name string
		to   **lab.Machine
	}{{"registry", &s.store}, {"publisher", &s.publisher}, {"consumer", &s.consumer}} {
		if *m.to, err = s.lab.Machine(ctx, m.name); err != nil {
			return err
		}
	}
	if s.registry, err = s.store.StartRegistry(ctx); err != nil {
		return err
	}
	name := s.registry.Addr + "/" + Repository(s.opts.Image)
	s.original, s.converted = name+":latest", name+":ipcs"
	s.say("the original image, in the registry as %s", s.original)
	if _, err := images.Copy(ctx, s.opts.Image, s.original, s.store.HTTPClient()); err != nil {
		return err
	}
	s.say("on the publisher: convert it")
	if s.daemon, err = s.publisher.StartDaemon(ctx, lab.DaemonOptions{}); err != nil {
		return err
	}
	return s.typed(s.publisher.Command(ctx, "convert", "--mediatype", "unixfs", "--plain-http",
		"--ipfs-api", s.daemon.API, s.original, s.converted))
}

// Repository makes a name of a repository from that of an image.
func Repository(image string) string {
	image = strings.TrimPrefix(image, "oci:")
	if i := strings.LastIndexByte(image, '/'); i >= 0 {
		image = image[i+1:]
	}
	image, _, _ = strings.Cut(image, "@")
	image, _, _ = strings.Cut(image, ":")
	return strings.ToLower(image)
}

func (s *stage) say(format string, args ...any) { s.print("\n==> "+format+"\n", args...) }

func (s *stage) print(format string, args ...any) { fmt.Fprintf(s.opts.Out, format, args...) }

// typed shows a command as a user would type it, and runs it.
func (s *stage) typed(cmd *exec.Cmd) error {
	s.print("    # %s\n", shown(cmd.Args))
	out, err := cmd.CombinedOutput()
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		if line != "" {
			s.print("    %s\n", line)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", shown(cmd.Args), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// shown is a command line without what only the lab needs.
func shown(args []string) string {
	if len(args) > 3 && args[0] == "nsenter" {
		args = args[3:]
	}
	if len(args) == 3 && path.Base(args[0]) == "sh" {
		return args[2]
	}
	line := strings.Join(args, " ")
	dir, _, _ := strings.Cut(line, " ")
	return strings.TrimPrefix(line, dir[:strings.LastIndexByte(dir, '/')+1])
}

// dropCaches empties the page cache, so that a run starts like after a boot.
func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0o200)
}
