//go:build linux

package snapshotter_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/snapshotter"
)

// TestFillsWhatIsShown: fetched ahead of need, and counted, is what a container can read, and no
// file that an upper layer hides; also by a daemon that finds the image written.
func TestFillsWhatIsShown(t *testing.T) {
	l := newLab(t)
	p := prefetcher{make(chan asked, 10)}
	l.config.Prefetch, l.config.Fill = p, snapshotter.FillOn
	l.restart()
	layers := stack()
	// The content of a hidden file is shown elsewhere in its layer: the two stand for each other.
	layers[0] = append(layers[0], file("opt/a/twin", "twins", 0o644), file("twin", "twins", 0o644))
	c, _ := l.build("iii", layers)
	_, root := l.active(l.Snapshotter, c.parent)
	want := contents(t, root)
	check := func(from string, got []cid.Cid) {
		t.Helper()
		sortCids(got)
		if got = slices.Compact(got); !slices.Equal(got, want) {
			t.Errorf("%s: %d files %v, want %d: %v", from, len(got), got, len(want), want)
		}
	}
	for range 2 {
		call := <-p.calls
		if call.priority != fetch.Fill {
			t.Fatalf("asked for %v at priority %d", call.files, call.priority)
		}
		check("filled", call.files)
		var counted []cid.Cid
		for f := range l.ChainFiles(l.Status()[0].ID) {
			counted = append(counted, f.Cid)
		}
		check("counted", counted)
		l.restart()
	}
}

// contents are the CIDs of the files that one can read below a directory.
func contents(t *testing.T, root string) (all []cid.Cid) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) == 0 {
			return err
		}
		f, _ := objectstest.NewFile(t, b)
		all = append(all, f.Cid)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	sortCids(all)
	return slices.Compact(all)
}

func sortCids(list []cid.Cid) {
	slices.SortFunc(list, func(a, b cid.Cid) int { return bytes.Compare(a.Bytes(), b.Bytes()) })
}
