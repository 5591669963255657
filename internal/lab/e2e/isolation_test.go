package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// fetched and unfetched are files of the demo's image that a shell does not need.
const (
	fetched   = "/usr/share/common-licenses/GPL-3"
	unfetched = "/usr/share/common-licenses/GPL-2"
)

// TestIsolation stops the only peer while a container runs: what was fetched still
// reads, what was not is an error and works again when the peer is back.
func TestIsolation(t *testing.T) {
	t.Parallel() // most of the time it waits
	layout := labtest.Image(t, "small")
	w := newWorld(t, "isolate", 3*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ref := w.convert(w.push(layout))
	w.pull(ref, "ipcs")
	c := w.start("c", ref)
	before, err := c.exec(ctx, "before", "sha256sum", fetched)
	w.must(err)

	w.must(w.source.Stop())
	after, err := c.exec(ctx, "after", "sha256sum", fetched)
	w.must(err)
	if before != after {
		t.Errorf("%s changed: %q, %q", fetched, before, after)
	}
	out, err := c.exec(ctx, "alone", "sha256sum", unfetched)
	if err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("read of what no peer has: %q, %v; want Input/output error", out, err)
	}
	log, err := os.ReadFile(w.daemon.Log())
	w.must(err)
	for _, want := range []string{unfetched, "bafk", "peer"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log does not hold %q", want)
		}
	}

	w.must(w.source.Start(ctx))
	w.connected()
	// A read that failed fails again at once for a second.
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for try := 0; ; try++ {
		if _, err = c.exec(ctx, fmt.Sprintf("again-%d", try), "sha256sum", unfetched); err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the peer is back: %v", err)
		case <-tick.C:
		}
	}
}

// connected waits until the consumer has its peer.
func (w *world) connected() {
	w.t.Helper()
	w.until("a peer is connected", func(s *lab.Status) bool {
		for _, p := range s.Peers {
			if p.Connected {
				return true
			}
		}
		return false
	})
}

// TestIndexNotAvailable pulls while no peer has the image: the pull fails, says why,
// leaves nothing, and works when the peer is back.
func TestIndexNotAvailable(t *testing.T) {
	t.Parallel() // most of the time it waits
	layout := labtest.Image(t, "small")
	w := newWorld(t, "noindex", 2*time.Second)
	ctx := t.Context()
	ref := w.convert(w.push(layout))
	w.must(w.source.Stop())
	out, err := w.containerd.Ctr(ctx, "image", "pull", "--plain-http", "--snapshotter", "ipcs", ref).CombinedOutput()
	if err == nil {
		t.Fatalf("the pull succeeded:\n%s", out)
	}
	if !strings.Contains(string(out), "index") && !strings.Contains(string(out), "peer") {
		t.Errorf("the error does not say what is missing:\n%s", out)
	}
	w.nothingLeft()
	w.must(w.source.Start(ctx))
	w.connected()
	w.pull(ref, "ipcs")
	if out := w.run("c", ref, "ipcs", "echo", "runs"); out != "runs\n" {
		t.Errorf("output %q", out)
	}
}

// nothingLeft finds that the consumer's containerd has no image and no snapshot.
func (w *world) nothingLeft() {
	w.t.Helper()
	w.noImages()
	w.noSnapshots()
}

// noImages finds that containerd has no image.
func (w *world) noImages() {
	w.t.Helper()
	list, err := w.containerd.Client.ListImages(w.containerd.Context(w.t.Context()))
	w.must(err)
	for _, img := range list {
		w.t.Errorf("image %s is left", img.Name())
	}
}
