//go:build linux

package snapshotter_test

import (
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/lazyfs"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/internal/relay"
	"github.com/hinshun/ipcs/internal/relay/relaytest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/snapshotter"
)

// newLazyLab returns a lab with the real store, fetcher and FUSE, whose objects are all at
// the node that it returns.
func newLazyLab(t *testing.T) (*lab, *ipfstest.Memory, *objects.Store) {
	t.Helper()
	l := newLab(t)
	store, err := objects.Open(t.TempDir(), objects.Options{Logger: l.config.Logger})
	if err != nil {
		t.Fatal(err)
	}
	publisher := l.node
	l.node = ipfstest.NewMemory()
	l.node.Connect(publisher)
	fetcher := fetch.New(store, l.node, fetch.Options{Timeout: time.Minute, Logger: l.config.Logger})
	t.Cleanup(func() {
		// The snapshotter goes first, as in the daemon; closing it again is no error.
		for _, c := range []io.Closer{l, fetcher, store} {
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
	})
	l.config.ObjectsDir, l.config.Prefetch = store.ObjectsDir(), fetcher
	socket := "" // of the relay
	l.lazy = func(dir string, files snapshotter.Files) (snapshotter.Lazy, error) {
		client, err := relay.Dial(socket)
		if err != nil { // there is none yet, or none any more
			socket = relaytest.Start(l.t, dir, relaytest.Options{Logger: l.config.Logger})
			if client, err = relay.Dial(socket); err != nil {
				return nil, err
			}
		}
		server := lazyfs.Serve(client, files, fetcher, lazyfs.Options{Logger: l.config.Logger})
		relaytest.NoPoll(l.t, dir)
		l.served = server
		return server, nil
	}
	l.restart()
	return l, publisher, store
}

// TestLazy starts containers whose files are all at a peer.
func TestLazy(t *testing.T) {
	for _, kinds := range []string{"iii", "ioi", "oii"} {
		t.Run(kinds, func(t *testing.T) {
			t.Parallel()
			l, publisher, store := newLazyLab(t)
			ipcs, plain := l.buildAt(publisher, kinds, stack())
			if n := store.Stats().Objects; n > 0 {
				t.Errorf("%d objects are here before anything was read", n)
			}
			key, path := l.active(l.Snapshotter, ipcs.parent)
			view := l.view(l.overlay, plain.parent)
			compareTrees(t, path, view)
			if n := store.Stats().Objects; n == 0 {
				t.Error("no objects are here after all was read")
			}
			if err := unix.Unmount(path, 0); err != nil {
				t.Fatal(err)
			}
			l.node.Disconnect(publisher)
			l.restart()
			mounts, err := l.Mounts(l.ctx, key)
			if err != nil {
				t.Fatal(err)
			}
			compareTrees(t, l.mount(mounts), view)
			l.work(3, &ipcs, &plain)
		})
	}
}

// buildAt is build with the ipcs layers at another node, and no objects here.
func (l *lab) buildAt(publisher *ipfstest.Memory, kinds string, layers [][]entry) (ipcs, plain chain) {
	l.t.Helper()
	elsewhere := *l
	elsewhere.node, elsewhere.config.ObjectsDir = publisher, l.t.TempDir()
	return l.buildWith(elsewhere.convert, kinds, layers)
}
