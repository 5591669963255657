//go:build linux

package snapshotter_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/hosttest"
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
		l.served = lazyfs.Serve(client, files, fetcher, lazyfs.Options{Logger: l.config.Logger, Observe: files.Observe})
		relaytest.NoPoll(l.t, dir)
		return l.served, nil
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
			unmount(t, path)
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

// TestNative reads what is on disk, in each way to mount: the kernel asks FUSE for nothing
// from when the overlay is mounted on. What is not here does ask.
func TestNative(t *testing.T) {
	for name, mounts := range map[string]snapshotter.Mounts{
		"auto":     {},
		"loop":     {Image: snapshotter.ImageLoop},
		"metacopy": {Data: snapshotter.DataMetacopy},
		"hidden":   {Data: snapshotter.DataHidden, Image: snapshotter.ImageLoop},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, publisher, _ := newLazyLab(t)
			l.config.Mounts, l.config.Fill = mounts, snapshotter.FillOn
			l.restart()
			if err := l.Supported(); err != nil {
				hosttest.Lacking(t, err.Error())
			}
			here, plain := l.buildAt(publisher, "iii", stack())
			key := l.key("container")
			options, err := l.Prepare(l.ctx, key, here.parent)
			if err != nil {
				t.Fatal(err)
			}
			l.filled()
			path, view := l.mount(options), l.view(l.overlay, plain.parent)
			paths := describe(t, view)
			before := l.served.Stats().Requests
			for p := range paths {
				sameContent(t, path+p, view+p)
			}
			if n := l.served.Stats().Requests - before; n != 0 {
				t.Errorf("%d FUSE requests for what is on disk", n)
			}
			compareTrees(t, path, view)
			if err := l.Remove(l.ctx, key); err != nil {
				t.Fatal(err)
			}

			l.config.Fill = snapshotter.FillOff
			l.restart()
			elsewhere, _ := l.buildAt(publisher, "i", [][]entry{{file("not-here", "not here", 0o644)}})
			_, path = l.active(l.Snapshotter, elsewhere.parent)
			before = l.served.Stats().Requests
			if b, err := os.ReadFile(filepath.Join(path, "not-here")); err != nil || string(b) != "not here" {
				t.Errorf("%q, %v", b, err)
			}
			if l.served.Stats().Requests == before {
				t.Error("a file that was not here was read without FUSE")
			}
		})
	}
}

// sameContent reads what is at two paths.
func sameContent(t *testing.T, got, want string) {
	t.Helper()
	info, err := os.Lstat(got)
	if err != nil || !info.Mode().IsRegular() {
		if err != nil {
			t.Error(err)
		}
		return
	}
	a, err := os.ReadFile(got)
	if err != nil {
		t.Error(err)
		return
	}
	if b, err := os.ReadFile(want); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%s has %d bytes, want %d: %v", got, len(a), len(b), err)
	}
}

// filled waits until all files of the images in use are here.
func (l *lab) filled() {
	l.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		done := true
		for _, c := range l.Status() {
			done = done && (c.Fill == snapshotter.FillDone || c.Image == "")
		}
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			l.t.Fatalf("%+v", l.Status())
		}
	}
}

// unmount unmounts what nobody uses. A process that other tests start has its files open, too,
// until it is another program: for so long it is busy.
func unmount(t testing.TB, path string) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	err := unix.Unmount(path, 0)
	for range 1000 {
		if !errors.Is(err, unix.EBUSY) {
			break
		}
		<-tick.C
		err = unix.Unmount(path, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}
