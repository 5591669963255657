package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/bench/result"
	"github.com/hinshun/ipcs/internal/lab/bench/system"
)

// A trial is one system in one round, on a machine that pulls.
type trial struct {
	*Run
	round    int
	site     *system.Site
	system   system.System
	consumer *lab.Machine
	image    *system.Image // as it is reached over the link of the moment
}

// consume adds a machine that pulls to the lab, and calls f for every link, round and
// system.
func (r *Run) consume(ctx context.Context, l *lab.Lab, site *system.Site, published map[string]*system.Image, f func(t trial) error) error {
	m, err := l.Machine(ctx, "consumer")
	if err != nil {
		return err
	}
	return r.EachLink(func() error {
		if err := errors.Join(site.SetRate(ctx, r.Link.Mbit), m.SetRate(ctx, r.Link.Own())); err != nil {
			return err
		}
		return r.Rotate(ctx, func(round int, s system.System) error {
			img, err := site.Delayed(ctx, m, published[s.Name()], r.Link.RTT)
			if err != nil {
				return err
			}
			return f(trial{r, round, site, s, m, img})
		})
	})
}

// host starts a host with nothing on its disk.
func (t trial) host(ctx context.Context) (*system.Host, error) {
	name := t.system.Name()
	return t.system.Start(ctx, t.consumer, fmt.Sprintf("%s-%d", name, t.round), system.Options{
		Peers: t.image.Peers, Registry: t.image.Registry(), Profile: t.Profile(name, t.round),
	})
}

// record notes a figure of the trial.
func (t trial) record(m result.Metric, value float64) { t.Record(t.round, t.system.Name(), m, value) }

// log tells what came of the trial.
func (t trial) log(format string, args ...any) {
	t.Log("%-18s "+format, append([]any{t.system.Name()}, args...)...)
}
