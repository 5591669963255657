//go:build linux

package snapshotter_test

import (
	"testing"
	"time"

	"github.com/hinshun/ipcs/snapshotter"
)

// TestCounts runs one image until all its files are here, and then pulls another one that
// shares a file with it.
func TestCounts(t *testing.T) {
	l, publisher, store := newLazyLab(t)
	l.config.Fill, l.config.Here = snapshotter.FillOn, store.HasFile
	l.restart()
	until := func(what string, done func(snapshotter.Counts) bool) {
		t.Helper()
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for !done(l.Snapshotter.Counts()) {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				t.Fatalf("%s: %+v", what, l.Snapshotter.Counts())
			}
		}
	}
	common := file("common", "in both", 0o644)
	one, _ := l.buildAt(publisher, "i", [][]entry{{common, file("own", "in one", 0o644)}})
	if got := l.Snapshotter.Counts(); got.Layers != 1 || len(got.Images) != 0 || got.SharedFiles != 0 {
		t.Errorf("before a container: %+v", got)
	}
	key := l.key("container")
	if _, err := l.Prepare(l.ctx, key, one.parent); err != nil {
		t.Fatal(err)
	}
	until("the image is filled", func(c snapshotter.Counts) bool { return c.Images[snapshotter.FillDone] == 1 })
	status := l.Snapshotter.Status()
	if len(status) != 1 || status[0].Fill != snapshotter.FillDone || status[0].Image == "" {
		t.Errorf("status %+v", status)
	}
	if got := l.Snapshotter.Counts(); got.Mounted != 1 {
		t.Errorf("with a container: %+v", got)
	}
	two, _ := l.buildAt(publisher, "i", [][]entry{{common, file("other", "in the other", 0o644)}})
	until("the shared file is counted", func(c snapshotter.Counts) bool {
		return c.Layers == 2 && c.SharedFiles == 1 && c.SharedBytes == int64(len("in both"))
	})
	l.active(l.Snapshotter, two.parent) // the lazy file system stays for it
	if err := l.Remove(l.ctx, key); err != nil {
		t.Fatal(err)
	}
	unused := 0
	for _, s := range l.Snapshotter.Status() {
		if s.Fill == snapshotter.FillUnused && s.Image == "" {
			unused++
		}
	}
	if unused != 1 {
		t.Errorf("status %+v", l.Snapshotter.Status())
	}
}
