//go:build linux

package snapshotter_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"
)

// TestIndexesTogether prepares the lowest layer of an image alone: the indexes of all come, those
// of the others asked for before the lowest layer's root is answered, and they need no peer then.
func TestIndexesTogether(t *testing.T) {
	l := newLab(t)
	record, roots := l.imageOf("a", "b", "c", "d")
	publisher := l.node
	l = newLab(t)
	l.node.Connect(publisher)
	var mu sync.Mutex
	asked, all := make(map[cid.Cid]bool), make(chan struct{})
	l.node.SetFault(func(op string, c cid.Cid) error {
		if op != "get" || c == record.Cid {
			return nil
		}
		mu.Lock()
		asked[c] = true
		if len(asked) == len(roots) {
			close(all)
		}
		mu.Unlock()
		select {
		case <-all:
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("the other layers are not asked for")
		}
	})
	c := l.pullOf(record.Cid.String(), chain{}, roots[0])
	<-all
	mu.Lock()
	for _, root := range roots[1:] {
		if asked[root.Cid] {
			t.Errorf("the layer root %s was asked for, which the record has", root.Cid)
		}
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for index := range asked {
		for here := false; !here; <-tick.C {
			var err error
			if here, err = l.node.Has(l.ctx, index); err != nil {
				t.Fatal(err)
			}
		}
	}
	mu.Unlock()
	l.node.Disconnect(publisher)
	for _, root := range roots[1:] {
		c = l.pullOf(record.Cid.String(), c, root)
	}
	l.view(l.Snapshotter, c.parent)
}

// TestMountedBeforeFiles mounts a container and walks its tree: nothing but indexes has been asked
// for by then.
func TestMountedBeforeFiles(t *testing.T) {
	l, publisher, store := newLazyLab(t)
	l.config.Prefetch, l.config.ProfileWindow = nil, 0
	l.restart()
	var mu sync.Mutex
	asked := make(map[cid.Cid]bool)
	l.node.SetFault(func(_ string, c cid.Cid) error {
		mu.Lock()
		defer mu.Unlock()
		asked[c] = true
		return nil
	})
	ipcs, _ := l.buildAt(publisher, "iii", stack())
	_, path := l.active(l.Snapshotter, ipcs.parent)
	entries := 0
	err := filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			_, err = e.Info()
		}
		entries++
		return err
	})
	if err != nil || entries < 10 {
		t.Fatalf("%d entries: %v", entries, err)
	}
	l.node.SetFault(nil)
	files := 0
	for _, chain := range l.Status() {
		for f := range l.ChainFiles(chain.ID) {
			files++
			for i := range f.NumLeaves() {
				if asked[f.Leaf(i)] {
					t.Errorf("a leaf of the file %s has been asked for", f.Cid)
				}
			}
		}
	}
	if n := store.Stats().Objects; n > 0 || files == 0 || len(asked) == 0 {
		t.Errorf("%d of %d files are here; %d blocks were asked for", n, files, len(asked))
	}
}
