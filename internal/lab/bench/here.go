package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// settleTime is how long what is fetched ahead of the readers may take to end.
const settleTime = 60 * time.Second

// allHere returns an error unless all content of an image, of which every file was read,
// is on the host's disk: it reads everything again, from the disk, and the daemon must
// fetch nothing for that. The daemon's own count would not do: it counts files that
// upper layers hide, which nobody can read. There is nothing to find out where there is
// no daemon of ipcs.
func allHere(ctx context.Context, h *system.Host, ref string) (err error) {
	if h.Daemon == nil {
		return nil
	}
	before, err := settled(ctx, h.Daemon)
	if err != nil {
		return err
	}
	if err := freshCaches(); err != nil {
		return err
	}
	view, err := h.View(ctx, ref)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, view.Close(ctx)) }()
	if _, err := readWhole(ctx, view.Root, wholeReaders); err != nil {
		return err
	}
	after, err := h.Daemon.Status(ctx)
	if err != nil {
		return err
	}
	if after.Fetch != before.Fetch {
		return fmt.Errorf("every file of %s was read, and once more: fetched were first %+v and then %+v", ref, before.Fetch, after.Fetch)
	}
	return nil
}

// settled waits until the daemon fetches nothing, and returns its status then.
func settled(ctx context.Context, d *lab.Daemon) (*lab.Status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, settleTime, fmt.Errorf("it still fetches after %v", settleTime))
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		status, err := d.Status(ctx)
		if err != nil {
			return nil, errors.Join(err, context.Cause(ctx))
		}
		if status.Fetch.InFlight == 0 {
			return status, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
