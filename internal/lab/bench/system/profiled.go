package system

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// profiled is ipcs with the profile of the measured command in the image, and filling: as
// the daemon is configured by default.
type profiled struct{ ipcs }

func (profiled) Name() string { return "ipcs-profile" }

func (profiled) About() string {
	return "this project with a profile of the measured command in the image, its best case, and all other files fetched in the background"
}

// profileWindow is longer than any command takes: a recording ends with its container.
const profileWindow = 10 * time.Minute

// Publish converts the image, runs the command on the publisher to record what it reads,
// and converts the image again with that.
func (p profiled) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	return publishProfiled(ctx, site, source, p.Name())
}

// publishProfiled does so for a system, with more flags for convert.
func publishProfiled(ctx context.Context, site *Site, source Source, system string, flags ...string) (*Image, error) {
	img := &Image{Name: source.Image}
	publish := func(flags ...string) (err error) {
		img.Peers, err = site.into(ctx, func(api string) (err error) {
			img.Ref, err = convert(ctx, site, source.Image, system, api, flags...)
			return err
		})
		return err
	}
	if err := publish(flags...); err != nil || source.Command == "" {
		return img, err
	}
	dir, err := os.MkdirTemp("", "ipcs-profile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "profile")
	if err := record(ctx, site, system, img, source.Command, file); err != nil {
		return nil, err
	}
	return img, publish(append(slices.Clone(flags), "--profile", file)...)
}

// record runs the command on the publisher and writes what it read to a file.
func record(ctx context.Context, site *Site, system string, img *Image, command, file string) (err error) {
	// Beside the publisher's own daemon.
	h, err := startIPCS(ctx, site.Publisher, system, lab.DaemonOptions{Peers: img.Peers, Window: profileWindow, Port: 4101})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	if _, err := lab.Output(h.Pull(ctx, img.Ref)); err != nil {
		return err
	}
	if _, err := lab.Output(h.Run(ctx, img.Ref, "profile", command)); err != nil {
		return err
	}
	export := func() error {
		_, err := lab.Output(h.Daemon.Command(ctx, "profile", "export", "--output", file))
		return err
	}
	// It is there a moment after the container is gone.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		if err := export(); err == nil || tries == 100 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (profiled) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	return startIPCS(ctx, m, root, lab.DaemonOptions{Peers: opts.Peers, Pprof: opts.Profile, Fill: "on"})
}
