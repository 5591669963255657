package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// A resident is a host that has all content of an image on its disk.
type resident struct {
	*system.Host
	ref string // of the image
}

// residents are the hosts of all systems, by name.
type residents map[string]*resident

// settle starts a host of every system on one machine, and brings all content of the
// image to each, and then into the page cache: finding out that all content is on one's
// disk drops what the page cache has of the others. They must be stopped, also after an
// error. The servers go on: a system may ask them again.
func settle(ctx context.Context, r *Run, l *lab.Lab, image string) (residents, error) {
	all := residents{}
	_, published, err := publish(ctx, r, l, image)
	if err != nil {
		return all, err
	}
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return all, err
	}
	err = r.Each(ctx, func(s system.System) error {
		img := published[s.Name()]
		h, err := s.Start(ctx, m, s.Name(), system.Options{
			Peers: img.Peers, Registry: img.Registry(), Profile: r.Profile(s.Name(), 0),
		})
		if err != nil {
			return err
		}
		all[s.Name()] = &resident{Host: h, ref: img.Ref}
		return all[s.Name()].fill(ctx, r, s.Name())
	})
	if err != nil {
		return all, err
	}
	return all, r.Each(ctx, func(s system.System) error { return all[s.Name()].read(ctx) })
}

// fill pulls the image and reads every file of it: what is fetched when it is read is on
// the disk then.
func (h *resident) fill(ctx context.Context, r *Run, name string) error {
	got, err := pullWhole(ctx, h.Host, h.ref, wholeReaders)
	if err != nil {
		return fmt.Errorf("%w%s", err, h.Tail())
	}
	if err := allHere(ctx, h.Host, h.ref); err != nil {
		return err
	}
	r.Log("%-18s has %d files of %.1f MB", name, got.Files, float64(got.Bytes)/1e6)
	return nil
}

// read reads every file of the image in a new mount: all of them are in the page cache then.
func (h *resident) read(ctx context.Context) error {
	if err := h.inView(ctx, func(root string) error {
		_, err := readWhole(ctx, root, wholeReaders)
		return err
	}); err != nil {
		return fmt.Errorf("%w%s", err, h.Tail())
	}
	return nil
}

// inView calls f with a new mount of the image, as a container has it, that nobody has
// read from.
func (h *resident) inView(ctx context.Context, f func(root string) error) (err error) {
	v, err := h.Writable(ctx, h.ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close(ctx)) }()
	return f(v.Root)
}

// runAll runs a command in so many new containers, which are started at once, and returns
// the time until all have ended.
func (h *resident) runAll(ctx context.Context, command string, n int) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, longestRun, fmt.Errorf("it did not end within %v", longestRun))
	defer cancel()
	runs := make([]*exec.Cmd, n)
	for i := range runs {
		runs[i] = h.Run(ctx, h.ref, fmt.Sprintf("%s-%d", containerID(h.Host), i), command)
	}
	var g errgroup.Group // when one fails the others go on: one that is ended leaves its container
	start := time.Now()
	for _, run := range runs {
		g.Go(func() error {
			_, err := lab.Output(run)
			return err
		})
	}
	err := g.Wait()
	took := time.Since(start)
	if err != nil {
		return took, fmt.Errorf("%w%s", errors.Join(err, context.Cause(ctx)), h.Tail())
	}
	return took, nil
}

// stop ends all, and removes what they have.
func (all residents) stop(ctx context.Context) error {
	var errs []error
	for _, h := range all {
		errs = append(errs, h.Stop(ctx))
	}
	return errors.Join(errs...)
}
