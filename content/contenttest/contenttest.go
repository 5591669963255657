// Package contenttest opens content stores for tests, with all that is below them in a daemon.
package contenttest

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/hinshun/ipcs/content"
	"github.com/hinshun/ipcs/internal/blobs"
	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
)

// fetchTimeout is how long a read waits for peers that have nothing.
const fetchTimeout = 2 * time.Second

// A Host has a content store. Closing it leaves the node open that it is on.
type Host struct {
	*content.Store
	Objects *objects.Store
	closers []func() error
}

// below is what a store is on.
type below struct {
	peers     ipfs.Fetcher // where what is elsewhere comes from
	node      blobs.Node
	elsewhere bool // the node has a repository of its own
	close     func() error
}

// Open opens the store in dir, whose blobs that are elsewhere peers have.
func Open(dir string, peers ipfs.Fetcher) (*Host, error) {
	return open(dir, func(store *objects.Store) (below, error) { return below{peers: peers, node: store}, nil })
}

// OpenOn opens the store in dir on a node that has a repository of its own.
func OpenOn(dir string, node ipfs.Node) (*Host, error) {
	return open(dir, func(*objects.Store) (below, error) { return below{peers: node, node: node, elsewhere: true}, nil })
}

// OpenEmbedded opens the store in dir on an embedded node, which listens on loopback and knows nobody: all is as in a daemon.
func OpenEmbedded(ctx context.Context, dir string) (*Host, error) {
	return open(dir, func(store *objects.Store) (below, error) {
		node, err := embedded.Open(ctx, embedded.Config{Listen: []string{"/ip4/127.0.0.1/tcp/0"}, Timeout: fetchTimeout}, store)
		if err != nil {
			return below{}, err
		}
		return below{peers: node, node: node, close: node.Close}, nil
	})
}

func open(dir string, connect func(*objects.Store) (below, error)) (*Host, error) {
	h := &Host{}
	if err := h.open(dir, connect); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Host) open(dir string, connect func(*objects.Store) (below, error)) (err error) {
	if h.Objects, err = objects.Open(filepath.Join(dir, "repo"), objects.Options{}); err != nil {
		return err
	}
	h.closers = append(h.closers, h.Objects.Close)
	on, err := connect(h.Objects)
	if err != nil {
		return err
	}
	if on.close != nil {
		h.closers = append(h.closers, on.close)
	}
	fetcher := fetch.New(h.Objects, on.peers, fetch.Options{Timeout: fetchTimeout})
	h.closers = append(h.closers, fetcher.Close)
	kept := blobs.New(blobs.Options{Store: h.Objects, Fetcher: fetcher, Nodes: on.peers, Node: on.node, Elsewhere: on.elsewhere})
	h.closers = append(h.closers, kept.Close)
	if h.Store, err = content.Open(context.Background(), filepath.Join(dir, "content"), kept, content.Options{}); err == nil {
		h.closers = append(h.closers, h.Store.Close)
	}
	return err
}

// Close closes all, the last first.
func (h *Host) Close() error {
	var err error
	for i := len(h.closers) - 1; i >= 0; i-- {
		err = errors.Join(err, h.closers[i]())
	}
	return err
}
