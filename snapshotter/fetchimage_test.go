//go:build linux

package snapshotter_test

import (
	"errors"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/snapshotter"
)

// TestFetchImage fetches an image that nobody has mounted, and then runs it without its peer.
func TestFetchImage(t *testing.T) {
	l, publisher, store := newLazyLab(t)
	c, _ := l.buildAt(publisher, "iii", stack())
	if n := store.Stats().Objects; n != 0 {
		t.Fatalf("%d objects are here before anything was fetched", n)
	}
	var last snapshotter.FetchProgress
	if err := l.FetchImage(t.Context(), c.id.String(), func(p snapshotter.FetchProgress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Files == 0 || last.Here+last.Fetched != last.Files || last.HereBytes+last.FetchedBytes != last.AllBytes {
		t.Errorf("at the end it says %+v", last)
	}
	publisher.SetFault(func(string, cid.Cid) error { return errors.New("gone") })
	_, root := l.active(l.Snapshotter, c.parent)
	if want := contents(t, root); len(want) != last.Files {
		t.Errorf("fetched %d files; a container sees %d", last.Files, len(want))
	}

	for name, want := range map[string]error{"sha256:": errdefs.ErrInvalidArgument, "sha256:0000000000": errdefs.ErrNotFound} {
		err := l.FetchImage(t.Context(), name, func(snapshotter.FetchProgress) { t.Errorf("%s: something is fetched", name) })
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
	}
	again := snapshotter.FetchProgress{}
	if err := l.FetchImage(t.Context(), c.id.String(), func(p snapshotter.FetchProgress) { again = p }); err != nil {
		t.Fatal(err)
	}
	if again.Here != last.Files || again.Fetched != 0 {
		t.Errorf("when all is here it says %+v", again)
	}
}
