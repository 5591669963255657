package tuning

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/ipfs/go-cid"
	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/ipfs"
)

// export compares requests for single blocks with such for whole files as CAR streams.
func (s *study) export(ctx context.Context) (tables []Table, err error) {
	err = s.withKubo(ctx, func(k *lab.Kubo) error {
		for _, of := range []struct {
			name, title string
			files       []ipfs.File
		}{
			{"export-large", "Files of several leaves", s.set.large()},
			{"export-small", "Files of up to 64 KiB", share(s.set.small(), 2)},
		} {
			cids := leaves(of.files)
			var variants []variant
			for _, n := range []int{16, 32, 64} {
				variants = append(variants, variant{fmt.Sprintf("`block/get`, %d", n), func(ctx context.Context) (sample, error) { return pull(ctx, k.API, k, n, cids) }})
			}
			for _, n := range []int{4, 16, 32, 64} {
				variants = append(variants, variant{fmt.Sprintf("`dag/export`, %d", n), func(ctx context.Context) (sample, error) { return exportFiles(ctx, k, n, of.files) }})
			}
			t, err := s.speeds(ctx, of.name, of.title+" ("+said(of.files)+"):", "command, requests", variants)
			if err != nil {
				return err
			}
			tables = append(tables, t)
		}
		return nil
	})
	return tables, err
}

// exportFiles gets files as CAR streams, so many at a time, and verifies each block.
func exportFiles(ctx context.Context, k *lab.Kubo, requests int, files []ipfs.File) (sample, error) {
	client := unixClient(strings.TrimPrefix(k.API, "/unix"), requests)
	defer client.CloseIdleConnections()
	return measure(k, func() (int64, int64, error) {
		var bytes, blocks atomic.Int64
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(requests)
		for _, f := range files {
			group.Go(func() error {
				return exportFile(ctx, client, f.Cid, func(b ipfs.Block) {
					if b.Cid.Prefix().Codec == cid.Raw { // as with block/get, nodes do not count
						bytes.Add(int64(len(b.Data)))
						blocks.Add(1)
					}
				})
			})
		}
		err := group.Wait()
		return bytes.Load(), blocks.Load(), err
	})
}

// unixClient is a client of a daemon's socket.
func unixClient(socket string, conns int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: conns, ReadBufferSize: 64 << 10,
	}}
}

// ask asks a daemon, whose answer must be closed.
func ask(ctx context.Context, client *http.Client, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://kubo"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.Join(errors.New(resp.Status), resp.Body.Close())
	}
	return resp, nil
}

// exportFile reads the CAR of one file: sections of a length, a CID and a block, after a header.
func exportFile(ctx context.Context, client *http.Client, root cid.Cid, fn func(ipfs.Block)) error {
	resp, err := ask(ctx, client, http.MethodPost, "/api/v0/dag/export?progress=false&arg="+root.String())
	if err != nil {
		return fmt.Errorf("export %s: %w", root, err)
	}
	defer resp.Body.Close()
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for header := true; ; header = false {
		n, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) && !header {
			return nil
		}
		if err != nil || n > ipfs.MaxBlock+1024 {
			return fmt.Errorf("export %s: section of %d bytes: %v", root, n, err)
		}
		section := make([]byte, n)
		if _, err := io.ReadFull(r, section); err != nil {
			return fmt.Errorf("export %s: %w", root, err)
		}
		if header {
			continue
		}
		used, c, err := cid.CidFromBytes(section)
		if err != nil {
			return fmt.Errorf("export %s: %w", root, err)
		}
		b, err := ipfs.VerifiedBlock(c, section[used:])
		if err != nil {
			return err
		}
		fn(b)
	}
}
