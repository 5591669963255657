package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// noSnapshots finds that the daemon has no snapshot.
func (w *world) noSnapshots() {
	w.t.Helper()
	ctx := w.containerd.Context(w.t.Context())
	err := w.containerd.Client.SnapshotService("ipcs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		w.t.Errorf("snapshot %s is left", info.Name)
		return nil
	})
	w.must(err)
}

// TestRestart stops, and kills, the daemon and starts it on the same root: every
// snapshot is there and shows the same tree, and new containers run.
func TestRestart(t *testing.T) {
	layout := labtest.Image(t, "small")
	w := newWorld(t, "restart", 0)
	ref := w.convert(w.push(layout))
	w.pull(ref, "ipcs")
	want := w.tree(ref, "ipcs")
	for _, how := range []struct {
		name string
		end  func() error
	}{
		{"stopped", func() error { return w.daemon.Stop() }},
		{"killed", func() error { w.daemon.Kill(); return nil }},
	} {
		t.Run(how.name, func(t *testing.T) {
			w := w.with(t)
			w.must(how.end())
			w.must(w.daemon.Start(t.Context()))
			w.reached()
			if out := w.run("c", ref, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
				t.Errorf("output %q", out)
			}
			w.same(want, w.tree(ref, "ipcs"), nil)
		})
	}
}

// reached waits until containerd has found the daemon again: it tries after pauses
// that grow to some seconds, and fails what it is asked for meanwhile.
func (w *world) reached() {
	w.t.Helper()
	ctx := w.containerd.Context(w.t.Context())
	var err error
	w.wait(func() bool {
		// What containerd knows to be missing it does not ask for.
		sn := w.containerd.Client.SnapshotService("ipcs")
		_, err = sn.Prepare(ctx, "reached", "")
		if err == nil || errdefs.IsAlreadyExists(err) {
			err = sn.Remove(ctx, "reached")
		}
		return !errdefs.IsUnavailable(err)
	}, func() string { return fmt.Sprintf("containerd reaches the daemon: %v", err) })
	w.must(err)
}
