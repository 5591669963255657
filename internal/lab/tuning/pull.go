package tuning

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

const (
	// chosen is how many requests are under way where that is not what is compared. On one
	// computer the daemon's 128 give no more.
	chosen = 32
	// A batch is what convert puts at a time.
	batchBytes  = 8 << 20
	batchBlocks = 1024
	// putters is how many batches are under way, as in convert on two cores.
	putters = 2
)

// withKubo starts a Kubo on a lab without links, puts the set into it, and calls f.
func (s *study) withKubo(ctx context.Context, f func(k *lab.Kubo) error) (err error) {
	l, err := s.open(ctx, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	m, err := l.Machine(ctx, "host")
	if err != nil {
		return err
	}
	k, err := m.StartKubo(ctx, lab.KuboOptions{})
	if err != nil {
		return err
	}
	if err := put(ctx, k.API, s.set.blocks); err != nil {
		return err
	}
	return f(k)
}

// put puts blocks on a node in batches.
func put(ctx context.Context, api string, blocks []ipfs.Block) error {
	c, err := kubo.New(api)
	if err != nil {
		return err
	}
	defer c.Close()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(putters)
	for len(blocks) > 0 {
		n, bytes := 0, 0
		for n < len(blocks) && n < batchBlocks && (n == 0 || bytes+len(blocks[n].Data) <= batchBytes) {
			bytes += len(blocks[n].Data)
			n++
		}
		batch := blocks[:n]
		blocks = blocks[n:]
		group.Go(func() error { return c.Put(ctx, batch...) })
	}
	return group.Wait()
}

// pull gets blocks with so many requests under way, and measures that.
func pull(ctx context.Context, api string, k *lab.Kubo, requests int, cids []cid.Cid) (sample, error) {
	c, err := kubo.NewWith(api, kubo.Options{Requests: requests})
	if err != nil {
		return sample{}, err
	}
	defer c.Close()
	// The first request finds out whether the daemon gives many blocks at once.
	if err := c.Fetch(ctx, cids[:1], func(ipfs.Block) error { return nil }); err != nil {
		return sample{}, err
	}
	return measure(k, func() (bytes, blocks int64, err error) {
		err = c.Fetch(ctx, cids, func(b ipfs.Block) error {
			bytes += int64(len(b.Data))
			blocks++
			return nil
		})
		return bytes, blocks, err
	})
}

// requests compares how many requests for blocks are under way, to a Kubo that has them.
func (s *study) requests(ctx context.Context) (tables []Table, err error) {
	err = s.withKubo(ctx, func(k *lab.Kubo) error {
		for _, of := range []struct {
			name, title string
			files       []ipfs.File
		}{
			{"requests-large", "Blocks of up to 1 MiB", s.set.large()},
			{"requests-small", "Blocks of up to 64 KiB", s.set.small()},
		} {
			cids := leaves(of.files)
			var variants []variant
			for _, n := range []int{1, 4, 16, 32, 64, 256} {
				variants = append(variants, variant{fmt.Sprint(n), func(ctx context.Context) (sample, error) { return pull(ctx, k.API, k, n, cids) }})
			}
			t, err := s.speeds(ctx, of.name, of.title+" ("+said(of.files)+"):", "requests", variants)
			if err != nil {
				return err
			}
			tables = append(tables, t)
		}
		return nil
	})
	return tables, err
}
