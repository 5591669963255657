//go:build linux

package snapshotter_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/layer"
)

// TestRestartAlone mounts a layer whose index is of several leaves when there are no peers
// any more, and the daemon before died before it had written down the layer root.
func TestRestartAlone(t *testing.T) {
	const files = 40_000
	l := newLab(t)
	publisher := ipfstest.NewMemory()
	l.node.Connect(publisher)
	entries := make([]entry, files)
	for i := range entries {
		name := fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		entries[i] = file(name, "", 0o644) // no data: there is none
	}
	result, err := layer.Write(l.ctx, publisher, bytes.NewReader(tarOf(t, entries)), layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := layer.ParseRoot(result.Root)
	if err != nil {
		t.Fatal(err)
	}
	if opened.IndexCid.Type() == cid.Raw {
		t.Fatal("the index is of one leaf")
	}
	c := l.pull(chain{}, result.Root)
	l.node.Disconnect(publisher)
	l.node.Remove(result.Root.Cid)
	l.restart()
	names, err := os.ReadDir(l.view(l.Snapshotter, c.parent))
	if err != nil || len(names) != files {
		t.Fatalf("%d files, %v; want %d", len(names), err, files)
	}
}

// TestPulledAgain pulls an image, removes it, loses its index, as a store does that needs the
// space, and pulls it again: the index is here then, and not only in memory.
func TestPulledAgain(t *testing.T) {
	l := newLab(t)
	publisher := ipfstest.NewMemory()
	l.node.Connect(publisher)
	result, err := layer.Write(l.ctx, publisher, bytes.NewReader(tarOf(t, []entry{file("a", "a", 0o644)})), layer.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	opened, err := layer.ParseRoot(result.Root)
	if err != nil {
		t.Fatal(err)
	}
	c := l.pull(chain{}, result.Root)
	if err := l.Remove(l.ctx, c.parent); err != nil {
		t.Fatal(err)
	}
	l.node.Remove(opened.IndexCid)
	l.pull(chain{}, result.Root)
	if has, err := l.node.Has(l.ctx, opened.IndexCid); !has || err != nil {
		t.Errorf("Has = %v, %v", has, err)
	}
}
