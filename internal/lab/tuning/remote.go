package tuning

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/lab"
)

const (
	// remoteRate is what the links carry, in Mbit/s.
	remoteRate = 1000
	// remoteShare of the files is pulled from another machine: each measurement begins with an
	// empty Kubo.
	remoteShare = 4
)

// remote pulls through a Kubo that has nothing from another machine.
func (s *study) remote(ctx context.Context) (tables []Table, err error) {
	l, err := s.open(ctx, remoteRate)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	publisher, err := l.Machine(ctx, "publisher")
	if err != nil {
		return nil, err
	}
	consumer, err := l.Machine(ctx, "consumer")
	if err != nil {
		return nil, err
	}
	kubo, err := publisher.StartKubo(ctx, lab.KuboOptions{})
	if err != nil {
		return nil, err
	}
	daemon, err := publisher.StartDaemon(ctx, lab.DaemonOptions{})
	if err != nil {
		return nil, err
	}
	status, err := daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	files := share(s.set.files, remoteShare)
	for _, from := range []struct{ name, title, api, peer string }{
		{"remote-ipcs", "The publisher is an ipcs node", daemon.API, status.Addrs[0]},
		{"remote-kubo", "The publisher is a Kubo", kubo.API, kubo.Peer},
	} {
		if err := put(ctx, from.api, s.set.blocks); err != nil {
			return nil, err
		}
		r := &remote{study: s, machine: consumer, peer: from.peer, name: from.name, cids: leaves(files)}
		variants := []variant{{"ipcs's own node, 32", r.own}}
		for _, n := range []int{4, 16, 32, 64, 256} {
			variants = append(variants, variant{fmt.Sprintf("Kubo, %d", n), func(ctx context.Context) (sample, error) { return r.throughKubo(ctx, n) }})
		}
		t, err := s.speeds(ctx, from.name, from.title+", on a link of 1 Gbit/s ("+said(files)+"):", "consumer's node, requests", variants)
		if err != nil {
			return nil, err
		}
		tables = append(tables, t)
	}
	return tables, nil
}

// remote is what pulls of one table have in common.
type remote struct {
	*study
	machine *lab.Machine
	peer    string
	name    string
	cids    []cid.Cid
	n       int // of nodes that were started
}

func (r *remote) next() string {
	r.n++
	return fmt.Sprintf("%s-%d", r.name, r.n)
}

// throughKubo pulls through a new Kubo.
func (r *remote) throughKubo(ctx context.Context, requests int) (sample, error) {
	k, err := r.machine.StartKubo(ctx, lab.KuboOptions{Name: r.next(), Peers: []string{r.peer}})
	if err != nil {
		return sample{}, err
	}
	if err := k.Connected(ctx); err != nil {
		return sample{}, err
	}
	got, err := pull(ctx, k.API, k, requests, r.cids)
	return got, errors.Join(err, k.Stop())
}

// own pulls through a new daemon with a node of its own.
func (r *remote) own(ctx context.Context) (sample, error) {
	d, err := r.machine.StartDaemon(ctx, lab.DaemonOptions{Root: r.next(), Peers: []string{r.peer}})
	if err != nil {
		return sample{}, err
	}
	got, err := pull(ctx, d.API, nil, chosen, r.cids)
	return got, errors.Join(err, d.Stop())
}
