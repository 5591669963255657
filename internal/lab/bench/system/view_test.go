package system_test

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/hinshun/ipcs/internal/lab/bench/system"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestViewAborts reads from a daemon that has stopped to answer, and finds that the end
// of the context ends that, and that everything can be cleaned up then.
func TestViewAborts(t *testing.T) {
	labtest.Build(t)
	l := labtest.Open(t, "aborts", 0)
	_, ipcs, img := published(t, l)
	h, err := ipcs.Start(t.Context(), labtest.Machine(t, l, "consumer"), "hangs", system.Options{Peers: img.Peers})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := h.Pull(t.Context(), img.Ref).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	view, err := h.View(ctx, img.Ref)
	if err != nil {
		t.Fatal(err)
	}
	status, err := h.Daemon.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(status.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var reader errgroup.Group
	reader.Go(func() error {
		_, err := os.ReadFile(filepath.Join(view.Root, "bin", "busybox"))
		return err
	})
	cancel()
	if err := reader.Wait(); err == nil {
		t.Error("a file was read from a daemon that does not answer")
	}
	// The daemon is dead, so that not all can be as it should be.
	t.Logf("close: %v; stop: %v", view.Close(ctx), h.Stop(ctx))
}
