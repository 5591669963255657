package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// intact finds that containerd gives all content of a machine as its digests say, but for what it collects meanwhile.
func (w *world) intact() {
	w.t.Helper()
	for _, d := range strings.Fields(w.ctr("content", "ls", "-q")) {
		sum, err := lab.Output(w.containerd.Shell(w.t.Context(), "ctr content get "+d+" >$TMPDIR/blob && sha256sum <$TMPDIR/blob"))
		if err != nil && strings.Contains(err.Error(), "not found") {
			continue
		}
		if err != nil || !strings.HasPrefix("sha256:"+sum, d) {
			w.t.Errorf("content get %s gives %s, %v", d, sum, err)
		}
	}
}

// TestContentFull pulls more than the daemon's disk has: the pull says so, what was there is whole, and when containerd has given up what it began, there is room for others.
func TestContentFull(t *testing.T) {
	w := newWorldWith(t, "full", options{loopback: true})
	tiny, large, fits := w.push(labtest.Image(t, "busybox")), w.push(labtest.Image(t, "small")), w.push(labtest.Image(t, "slice-3"))
	other := *w
	other.consume = labtest.Machine(t, w.lab, "other")
	dir := filepath.Join(other.consume.Dir(), "ipcs")
	w.must(os.MkdirAll(dir, 0o700))
	hosttest.Mount(t, "tmpfs", dir, "tmpfs", "size=40m")
	var err error
	other.daemon, err = other.consume.StartDaemon(t.Context(), lab.DaemonOptions{})
	w.must(err)
	t.Cleanup(func() {
		if err := other.daemon.Stop(); err != nil {
			t.Error(err)
		}
	})
	other.containerd, err = other.consume.StartContainerd(t.Context(), lab.ContainerdOptions{Daemon: other.daemon, Content: true})
	w.must(err)
	t.Cleanup(func() {
		if err := other.containerd.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			other.logs()
		}
	})
	other.pull(tiny, "overlayfs")
	for range 2 {
		_, err := lab.Output(other.containerd.Ctr(t.Context(), "image", "pull", "--plain-http", "--snapshotter", "overlayfs", large))
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Fatalf("50 MB on a disk of 40: %v", err)
		}
		other.intact()
	}
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := lab.Output(other.containerd.Ctr(t.Context(), "image", "pull", "--plain-http", "--snapshotter", "overlayfs", fits))
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("an image that there is room for: %v", err)
		}
		time.Sleep(time.Second) // until containerd has collected
	}
	other.intact()
	other.empties(tiny, fits)
}

// TestContentPeerVanishes reads a layer from the publisher, which is killed in the middle: the read fails, in time, and says why. When it is back, so is the layer.
func TestContentPeerVanishes(t *testing.T) {
	w := newWorldWith(t, "vanish", options{})
	ref := w.push(labtest.Image(t, "small"))
	target := strings.TrimSuffix(ref, "latest") + "chunked"
	_, err := lab.Output(w.publisher.Command(t.Context(), "convert", "--plain-http", "--ipfs-api", w.source.API, ref, target))
	w.must(err)
	status, err := w.source.Status(t.Context())
	w.must(err)
	other := w.onContent("other", status.Addrs...)
	other.ctr("content", "fetch", "--plain-http", target)
	layer := other.largest()
	w.must(w.publisher.SetRate(t.Context(), 40))
	file := filepath.Join(t.TempDir(), "layer")
	read := other.containerd.Shell(t.Context(), "ctr content get "+layer+" >"+file)
	var stderr strings.Builder
	read.Stderr = &stderr
	w.must(read.Start())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if info, err := os.Stat(file); err == nil && info.Size() > 1<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing of the layer comes")
		}
	}
	w.source.Kill()
	start := time.Now()
	err = read.Wait()
	if err == nil || time.Since(start) > time.Minute || !strings.Contains(stderr.String(), "read content "+layer) {
		t.Errorf("a read whose peer is gone: %v after %v\n%s", err, time.Since(start), stderr.String())
	}
	w.must(w.source.Start(t.Context()))
	w.must(w.publisher.SetRate(t.Context(), 1000))
	other.intact()
}

// largest is the digest of the largest blob that a machine has.
func (w *world) largest() string {
	w.t.Helper()
	var digest string
	most := 0.0
	for _, line := range w.contents() {
		fields := strings.Fields(line)
		var size float64
		for unit, bytes := range map[string]float64{"MB": 1e6, "MiB": 1 << 20} {
			if number, ok := strings.CutSuffix(fields[1], unit); ok {
				n, err := strconv.ParseFloat(number, 64)
				w.must(err)
				size = bytes * n
			}
		}
		if size > most {
			digest, most = fields[0], size
		}
	}
	return digest
}

// TestContentCollected removes images while others are pulled that share layers with them: nothing that is needed goes, and in the end all that is not needed has gone.
func TestContentCollected(t *testing.T) {
	w := newWorldWith(t, "collect", options{loopback: true})
	refs := []string{w.push(labtest.Image(t, "base")), w.push(labtest.Image(t, "gcc"))} // one on the other
	other := w.onContent("other")
	for round := range 4 {
		pulled, removed := refs[round%2], refs[(round+1)%2]
		if round > 0 {
			var both sync.WaitGroup
			both.Go(func() { // this is the image of the round before
				if _, err := lab.Output(other.containerd.Ctr(t.Context(), "image", "rm", "--sync", removed)); err != nil {
					t.Error(err)
				}
			})
			both.Go(func() {
				if _, err := lab.Output(other.containerd.Ctr(t.Context(), "content", "fetch", "--plain-http", pulled)); err != nil {
					t.Error(err)
				}
			})
			both.Wait()
		} else {
			other.ctr("content", "fetch", "--plain-http", pulled)
		}
		out := other.ctr("image", "check", "--snapshotter", "native", "name=="+pulled)
		if !strings.Contains(out, " complete ") {
			t.Errorf("round %d: %s", round, out)
		}
		other.intact()
	}
	other.empties(refs[1])
}
