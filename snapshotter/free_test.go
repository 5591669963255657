//go:build linux

package snapshotter_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/snapshotter"
)

// TestFree removes one of two images: its files go, and those that the other has, too, stay,
// also if no container has used the other since the daemon's start.
func TestFree(t *testing.T) {
	for name, limit := range map[string]int64{"unlimited": 0, "limited": 1 << 40} {
		t.Run(name, func(t *testing.T) { testFree(t, limit) })
	}
}

func testFree(t *testing.T, limit int64) {
	l, publisher, store := newLazyLab(t)
	store.Limit(limit, nil)
	l.config.Fill, l.config.Free = snapshotter.FillOn, store.Free
	l.restart()
	common, own := file("common", "in both", 0o644), file("own", "in one", 0o644)
	one, _ := l.buildAt(publisher, "i", [][]entry{{common, own}})
	two, _ := l.buildAt(publisher, "i", [][]entry{{common, file("other", "in the other", 0o644)}})
	raw := func(content string) ipfs.File {
		return ipfs.File{Cid: cidOf(t, content), Size: int64(len(content))}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	until := func(here bool, contents ...string) {
		t.Helper()
		for _, content := range contents {
			for store.HasFile(raw(content)) != here {
				select {
				case <-tick.C:
				case <-t.Context().Done():
					t.Fatalf("the file %q is here: %v", content, !here)
				}
			}
		}
	}
	for _, c := range []chain{one, two} {
		key := l.key("container")
		if _, err := l.Prepare(l.ctx, key, c.parent); err != nil {
			t.Fatal(err)
		}
		until(true, "in both")
		if c == one {
			until(true, "in one")
		} else {
			until(true, "in the other")
		}
		if err := l.Remove(l.ctx, key); err != nil {
			t.Fatal(err)
		}
	}
	third, _ := l.buildAt(publisher, "i", [][]entry{{file("third", "in the third", 0o644)}})
	l.active(l.Snapshotter, third.parent) // the lazy file system stays for it
	l.restart()
	if err := l.Remove(l.ctx, one.parent); err != nil {
		t.Fatal(err)
	}
	until(false, "in one")
	if !store.HasFile(raw("in both")) || !store.HasFile(raw("in the other")) {
		t.Error("files of the other image are gone")
	}
	if err := l.Remove(l.ctx, two.parent); err != nil {
		t.Fatal(err)
	}
	l.restart() // the process that follows frees what this one has not got to
	until(false, "in both", "in the other")
	until(true, "in the third")
	for store.Stats().Objects != 1 { // counted after the file has gone
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%d objects are left", store.Stats().Objects)
		}
	}
	for { // that is noted after the files have gone
		left, err := os.ReadDir(filepath.Join(l.config.Root, "unused"))
		if err == nil && len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
		}
		if err != nil || t.Context().Err() != nil {
			t.Fatalf("layers are still to be freed: %v, %v", left, err)
		}
	}
}
