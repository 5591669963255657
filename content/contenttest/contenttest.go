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
)

// fetchTimeout is how long a read waits for peers that have nothing.
const fetchTimeout = 2 * time.Second

// A Host has a content store. Closing it leaves the node open that it is on.
type Host struct {
	*content.Store
	Objects *objects.Store
	closers []func() error
}

// Open opens the store in dir, whose blobs that are elsewhere peers have.
func Open(dir string, peers ipfs.Fetcher) (*Host, error) {
	return open(dir, peers, nil)
}

// OpenOn opens the store in dir on a node that has a repository of its own.
func OpenOn(dir string, node ipfs.Node) (*Host, error) {
	return open(dir, node, node)
}

func open(dir string, peers ipfs.Fetcher, elsewhere blobs.Node) (*Host, error) {
	h := &Host{}
	if err := h.open(dir, peers, elsewhere); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Host) open(dir string, peers ipfs.Fetcher, elsewhere blobs.Node) (err error) {
	if h.Objects, err = objects.Open(filepath.Join(dir, "repo"), objects.Options{}); err != nil {
		return err
	}
	h.closers = append(h.closers, h.Objects.Close)
	fetcher := fetch.New(h.Objects, peers, fetch.Options{Timeout: fetchTimeout})
	h.closers = append(h.closers, fetcher.Close)
	opts := blobs.Options{Store: h.Objects, Fetcher: fetcher, Nodes: peers, Node: h.Objects}
	if elsewhere != nil {
		opts.Node, opts.Elsewhere = elsewhere, true
	}
	kept := blobs.New(opts)
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
