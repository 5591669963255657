// Package embedded runs an IPFS node in this process.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// A Store keeps blocks and pins on this machine. *objects.Store is one.
type Store interface {
	Get(ctx context.Context, c cid.Cid) ([]byte, error) // ipfs.ErrNotFound if absent
	Has(ctx context.Context, c cid.Cid) (bool, error)
	BlockSize(ctx context.Context, c cid.Cid) (int, error)
	Put(ctx context.Context, blocks ...ipfs.Block) error
	Pin(ctx context.Context, pin ipfs.Pin) error
	Unpin(ctx context.Context, pin ipfs.Pin) error
	Pins(ctx context.Context, name string) ([]ipfs.Pin, error)
}

// Config says who the node is and whom it talks to.
type Config struct {
	Listen   []string      // multiaddrs; empty: do not listen
	Peers    []string      // multiaddrs with /p2p/ID of peers that are kept connected
	KeyFile  string        // identity, created 0600 if absent
	SwarmKey string        // path of a private network key, "" for none
	Timeout  time.Duration // how long a block may take to come from peers; default 30 s
	BanTime  time.Duration // how long a peer that sent wrong blocks is refused; default 10 min
	Logger   *slog.Logger
}

// PeerInfo describes a peer.
type PeerInfo struct {
	ID        string
	Addr      string
	Connected bool
	BytesIn   uint64 // of blocks
	Bad       int    // blocks it sent that nobody wanted
	Banned    bool
}

// NotFoundError wraps ipfs.ErrNotFound.
type NotFoundError struct {
	Cid    cid.Cid
	Peers  []string // tried
	Waited time.Duration
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("block %s: not found on peers %q in %s", e.Cid, e.Peers, e.Waited)
}

func (e *NotFoundError) Unwrap() error { return ipfs.ErrNotFound }

var _ ipfs.Node = (*Node)(nil)

// A Node is an ipfs.Node in this process.
type Node struct {
	store Store
}

// Open starts a node with peers.
func Open(ctx context.Context, cfg Config, store Store) (*Node, error) {
	return nil, errors.New("not written yet")
}

// Offline returns a node that knows no peers.
func Offline(store Store) *Node { return &Node{store: store} }

// ID returns the peer ID, or "" if the node is offline.
func (n *Node) ID() string { return "" }

// Addrs returns the addresses, with /p2p/ID.
func (n *Node) Addrs() []string { return nil }

// Peers describes the configured and the connected peers.
func (n *Node) Peers() []PeerInfo { return nil }

// Get implements ipfs.Getter.
func (n *Node) Get(ctx context.Context, c cid.Cid) ([]byte, error) { return n.store.Get(ctx, c) }

// Fetch implements ipfs.Fetcher.
func (n *Node) Fetch(ctx context.Context, cids []cid.Cid, fn func(ipfs.Block) error) error {
	for _, c := range cids {
		data, err := n.store.Get(ctx, c)
		if err != nil {
			return err
		}
		if err := fn(ipfs.Block{Cid: c, Data: data}); err != nil {
			return err
		}
	}
	return nil
}

// Put implements ipfs.Putter.
func (n *Node) Put(ctx context.Context, blocks ...ipfs.Block) error {
	return n.store.Put(ctx, blocks...)
}

// Has implements ipfs.Local.
func (n *Node) Has(ctx context.Context, c cid.Cid) (bool, error) { return n.store.Has(ctx, c) }

// Pin implements ipfs.Pinner.
func (n *Node) Pin(ctx context.Context, pin ipfs.Pin) error { return n.store.Pin(ctx, pin) }

// Unpin implements ipfs.Pinner.
func (n *Node) Unpin(ctx context.Context, pin ipfs.Pin) error { return n.store.Unpin(ctx, pin) }

// Pins implements ipfs.Pinner.
func (n *Node) Pins(ctx context.Context, name string) ([]ipfs.Pin, error) {
	return n.store.Pins(ctx, name)
}

// Close stops the node, and not the store.
func (n *Node) Close() error { return nil }
