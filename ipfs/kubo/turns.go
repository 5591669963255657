package kubo

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/hinshun/ipcs/ipfs"
)

// closedTries is how often a request is sent whose connection is closed.
const closedTries = 5

// turns bound the requests that are under way. Half of them are for what somebody waits for
// now or soon: the rest does not get in its way.
type turns struct{ all, patient *semaphore.Weighted }

func newTurns(n int) turns {
	return turns{semaphore.NewWeighted(int64(n)), semaphore.NewWeighted(int64(max(1, n/2)))}
}

// take waits for a turn, which ends with done.
func (t turns) take(ctx context.Context) (done func(), err error) {
	if ipfs.RankOf(ctx) < ipfs.Planned {
		return func() { t.all.Release(1) }, t.all.Acquire(ctx, 1)
	}
	if err := t.patient.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	if err := t.all.Acquire(ctx, 1); err != nil {
		t.patient.Release(1)
		return nil, err
	}
	return func() {
		t.all.Release(1)
		t.patient.Release(1)
	}, nil
}

// patiently repeats what fails because no daemon is there, until one is or the patience ends.
// What was broken off it repeats a few times also without patience: the daemon may just have closed a
// connection that it took for idle. What fn does can be done twice.
func (c *Client) patiently(ctx context.Context, fn func() error) error {
	end, pause := time.Now().Add(c.opts.Patience), firstPause
	for tries := 1; ; tries++ {
		err := fn()
		if errors.Is(err, errBrokenOff) && tries < closedTries && ctx.Err() == nil {
			continue
		}
		if !errors.Is(err, ErrNoDaemon) && !errors.Is(err, errBrokenOff) || time.Now().Add(pause).After(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", err, ctx.Err())
		}
		pause = min(2*pause, lastPause)
	}
}
