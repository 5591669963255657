package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// crashes is how often something is killed, unless IPCS_KILLS says otherwise.
const crashes = 3

// TestCrash kills the daemon, the process that holds its FUSE mount, or both, while stock
// containerd pulls an image, runs it, and removes it with all that its garbage collector then
// does. Whatever has failed works when it is done again, and in the end nothing is left.
func TestCrash(t *testing.T) {
	w := newWorld(t, "crash", 0)
	ref := w.convert(w.push(labtest.Image(t, "busybox")))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range hosttest.Kills(t, crashes) {
		status, err := w.daemon.Status(t.Context())
		w.must(err)
		done := make(chan error, 1)
		go func() { done <- w.cycle(ref) }()
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
		kind := [...]string{"daemon", "relay", "both"}[random.IntN(3)]
		if kind != "daemon" {
			w.must(syscall.Kill(status.Lazy.RelayPID, syscall.SIGKILL))
		}
		if kind != "relay" {
			w.daemon.Kill()
			w.must(w.daemon.Start(t.Context()))
		} else {
			w.until("a relay", func(s *lab.Status) bool { return s.Lazy.RelayPID != status.Lazy.RelayPID && s.Lazy.RelayPID != 0 })
		}
		if err := <-done; err != nil && kind == "relay" {
			t.Errorf("although only the relay was killed: %v", err)
		}
		w.reached()
		w.must(w.cycle(ref))
	}
	w.noSnapshots()
	left, err := os.ReadDir(filepath.Join(w.daemon.Root(), "snapshotter", "snapshots"))
	w.must(err)
	if len(left) > 0 {
		t.Errorf("folders of snapshots are left: %v", left)
	}
	w.until("all files go", func(s *lab.Status) bool { return s.Store.Objects < 5 })
	// It gives back what its start has needed. The program's pages come back as they are used.
	w.until("the relay is small", func(s *lab.Status) bool { return s.Lazy.RelayOwn < 10<<20 })
}

// cycle pulls an image, runs it, and removes it, after what a cycle before may have left.
func (w *world) cycle(ref string) error {
	ctx := context.WithoutCancel(w.t.Context())
	for _, left := range [][]string{{"task", "rm", "--force", w.id("c")}, {"container", "rm", w.id("c")}} {
		_ = w.containerd.Ctr(ctx, left...).Run() // there may be nothing
	}
	for _, args := range [][]string{
		{"image", "pull", "--plain-http", "--snapshotter", "ipcs", ref},
		{"run", "--rm", "--snapshotter", "ipcs", ref, w.id("c"), "sh", "-c", "cat /bin/* >/dev/null; echo run >/written"},
		{"image", "rm", "--sync", ref},
	} {
		if _, err := lab.Output(w.containerd.Ctr(ctx, args...)); err != nil {
			return err
		}
	}
	return nil
}
