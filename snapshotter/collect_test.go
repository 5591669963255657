//go:build linux

package snapshotter_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
)

// TestInUse says of files, and of the leaves of large ones, whether a layer of a snapshot has them,
// also when no container has used it since the daemon's start, and no longer when its snapshot is gone.
func TestInUse(t *testing.T) {
	l := newLab(t)
	small, large := "the content of a file", strings.Repeat("large ", ipfs.LeafSize/4)
	c, _ := l.build("i", [][]entry{{file("small", small, 0o644), file("large", large, 0o644), dir("folder", 0o755)}})
	leaf := func(data string) cid.Cid {
		b, err := ipfs.NewBlock(cid.Raw, []byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return b.Cid
	}
	first, last := leaf(large[:ipfs.LeafSize]), leaf(large[ipfs.LeafSize:])
	leaves := append(bytes.Clone(first.Hash()[2:]), last.Hash()[2:]...)
	whole, err := ipfs.BuildFile(int64(len(large)), string(leaves), nil)
	if err != nil {
		t.Fatal(err)
	}
	objects := map[string]cid.Cid{"a file": leaf(small), "a large file": whole, "its first leaf": first, "its last leaf": last}
	wantUse := func(want bool) {
		t.Helper()
		used, err := l.InUse(l.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for what, c := range objects {
			if used(c) != want {
				t.Errorf("%s is in use: %v", what, !want)
			}
		}
		for what, c := range map[string]cid.Cid{
			"another file":                     leaf("another"),
			"a file with the digest of a leaf": cid.NewCidV1(cid.DagProtobuf, first.Hash()),
			"a leaf with the digest of a file": cid.NewCidV1(cid.Raw, whole.Hash()),
		} {
			if used(c) {
				t.Errorf("%s is in use", what)
			}
		}
	}
	wantUse(true)
	l.restart()
	wantUse(true)
	if err := l.Remove(l.ctx, c.parent); err != nil {
		t.Fatal(err)
	}
	wantUse(false)
}

// TestInUseUnknown does not take files for unused whose layer's index cannot be had.
func TestInUseUnknown(t *testing.T) {
	l := newLab(t)
	l.build("i", [][]entry{{file("a", "a", 0o644)}})
	l.restart()
	for _, c := range l.node.Cids() {
		l.node.Remove(c)
	}
	if _, err := l.InUse(l.ctx); err == nil || !strings.Contains(err.Error(), "layer") {
		t.Errorf("InUse without an index: %v", err)
	}
}
