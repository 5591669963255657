package e2e

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/pkg/rootfs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/internal/lab/tree"
	"github.com/hinshun/ipcs/mediatype"
)

// onKubo adds a machine that runs containers with Kubo as its node, whose peers those are.
func (w *world) onKubo(name string, opts lab.DaemonOptions, peers ...string) (*world, *lab.Kubo) {
	w.t.Helper()
	m := labtest.Machine(w.t, w.lab, name)
	k, err := m.StartKubo(w.t.Context(), lab.KuboOptions{Peers: peers})
	w.must(err)
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("%s", k.Tail())
		}
	})
	opts.Kubo = k.API
	return w.on(m, opts, lab.ContainerdOptions{Unpack: true}), k
}

// TestKuboConsumer reads an image that was converted on a node of ipcs through a Kubo.
func TestKuboConsumer(t *testing.T) {
	labtest.Tools(t, tools.Kubo...)
	w := newWorld(t, "kuboread", 0)
	original := w.push(labtest.Image(t, "small"))
	w.pull(original, "overlayfs")
	want, touched := w.tree(original, "overlayfs"), w.touched(original)
	ref := w.convert(original)
	source, err := w.source.Status(t.Context())
	w.must(err)
	on, kubo := w.onKubo("reader", lab.DaemonOptions{Fill: "on", Metrics: true, Window: 2 * time.Second}, source.Addrs...)
	on.pull(ref, "ipcs")
	if out := on.run("python", ref, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
		t.Errorf("output %q", out)
	}
	on.start("c", ref)
	got := on.scraped("all files come", func(v map[string]float64) bool { return v[`ipcs_images{fill="done"}`] == 1 })
	if bytes := got[`ipcs_peer_received_bytes_total{peer="kubo"}`]; bytes < got["ipcs_fetched_bytes_total"] || bytes < 1<<20 || got[`ipcs_peers{state="connected"}`] != 1 {
		t.Errorf("%v bytes of Kubo, %v fetched, %v peers", bytes, got["ipcs_fetched_bytes_total"], got[`ipcs_peers{state="connected"}`])
	}
	on.came("kubo")
	on.seesKubo(kubo, source.ID)
	on.same(want, on.tree(ref, "ipcs"), touched)
	file := filepath.Join(t.TempDir(), "profile")
	on.export(file)
	if info, err := os.Stat(file); err != nil || info.Size() < 100 {
		t.Errorf("profile: %v, %v", info, err)
	}
	cmd := on.daemon.Command(t.Context(), "check")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "ipfs repo verify") {
		t.Errorf("check: %v\n%s", err, out)
	}
	t.Run("unpacked", func(t *testing.T) {
		on := on.with(t)
		on.pull(ref, "overlayfs")
		on.same(want, on.tree(ref, "overlayfs"), touched)
	})
	t.Run("commit", func(t *testing.T) { on.with(t).commitsInto(kubo, ref) })
}

// seesKubo finds Kubo in the status, and that its peer is the publisher.
func (w *world) seesKubo(kubo *lab.Kubo, peer string) {
	w.t.Helper()
	status := w.until("Kubo has a peer", func(s *lab.Status) bool { return s.Kubo != nil && len(s.Kubo.Connected) > 0 })
	if !strings.HasSuffix(status.Kubo.Connected[0], "/p2p/"+peer) || !strings.HasSuffix(kubo.Peer, "/p2p/"+status.ID) || status.Kubo.Error != "" {
		w.t.Errorf("it is %s, which has the peers %q: %s", status.ID, status.Kubo.Connected, status.Kubo.Error)
	}
	text, err := lab.Output(w.daemon.Command(w.t.Context(), "status"))
	w.must(err)
	if !strings.Contains(text, "Kubo (kubo/0.43") || !strings.Contains(text, "kubo connected, ") {
		w.t.Errorf("status does not show Kubo:\n%s", text)
	}
	if code, body := w.readyz(); code != http.StatusOK {
		w.t.Errorf("it is not ready: %s", body)
	}
}

func (w *world) readyz() (code int, body string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+w.daemon.Metrics+"/readyz", nil)
	w.must(err)
	resp, err := w.consume.HTTPClient().Do(req)
	w.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	w.must(err)
	return resp.StatusCode, string(text)
}

// commitsInto makes a layer of what a container changed, which is in Kubo and pinned there, and
// runs the image of it.
func (w *world) commitsInto(kubo *lab.Kubo, ref string) {
	ctx, done, err := w.containerd.Client.WithLease(w.containerd.Context(w.t.Context()))
	w.must(err)
	defer func() { w.must(done(context.WithoutCancel(ctx))) }()
	img, err := w.containerd.Client.GetImage(ctx, ref)
	w.must(err)
	v, err := w.containerd.Writable(ctx, ref, "ipcs")
	w.must(err)
	w.edit(v.Root)
	want, err := tree.Read(v.Root)
	w.must(err)
	w.must(v.Unmount())
	layer, err := rootfs.CreateDiff(ctx, v.Key(), w.containerd.Client.SnapshotService("ipcs"), w.containerd.Client.DiffService(), diff.WithMediaType(mediatype.Layer))
	w.must(err)
	w.must(v.Close(ctx))
	w.pinned(kubo, layer)
	committed, err := w.commit(ctx, img, layer)
	w.must(err)
	w.must(committed.Unpack(ctx, "ipcs"))
	w.sameButTimes(want, w.tree(committed.Name(), "ipcs"))
}

// pinned finds that a committed layer is pinned in Kubo.
func (w *world) pinned(kubo *lab.Kubo, layer ocispec.Descriptor) {
	w.t.Helper()
	root, err := mediatype.RootCid(layer.Digest)
	w.must(err)
	pins, err := lab.Output(kubo.Command(w.t.Context(), "pin", "ls", "--type=recursive", "--names"))
	w.must(err)
	if want := root.String() + " recursive ipcs:commit:" + layer.Digest.String(); !strings.Contains(pins, want) {
		w.t.Errorf("%q is not among Kubo's pins:\n%s", want, pins)
	}
}

// TestKuboPublisher converts an image onto the Kubo of a daemon, which keeps nothing of it
// itself, and reads it through a node of ipcs, and through another Kubo.
func TestKuboPublisher(t *testing.T) {
	labtest.Tools(t, tools.Kubo...)
	w := newWorld(t, "kubopub", 0)
	publisher, kubo := w.onKubo("maker", lab.DaemonOptions{})
	w.publisher, w.source = publisher.consume, publisher.daemon
	original := w.push(labtest.Image(t, "small"))
	w.pull(original, "overlayfs")
	want, touched := w.tree(original, "overlayfs"), w.touched(original)
	ref := w.convert(original)
	status, err := publisher.daemon.Status(t.Context())
	w.must(err)
	if status.Store.Objects > 0 {
		t.Errorf("%d objects of %d bytes are in the daemon's store, and in Kubo", status.Store.Objects, status.Store.Bytes)
	}
	pins, err := lab.Output(kubo.Command(t.Context(), "pin", "ls", "--type=recursive", "--names"))
	w.must(err)
	for _, name := range []string{"ipcs:unixfs-v1:", "ipcs:image:"} {
		if !strings.Contains(pins, name) {
			t.Errorf("no pin %q in Kubo:\n%s", name, pins)
		}
	}
	t.Run("embedded", func(t *testing.T) {
		w := w.with(t).consumer("embedded", lab.DaemonOptions{})
		w.pull(ref, "ipcs")
		w.same(want, w.tree(ref, "ipcs"), touched)
	})
	t.Run("kubo", func(t *testing.T) {
		w, _ := w.with(t).onKubo("another", lab.DaemonOptions{}, kubo.Peer)
		w.pull(ref, "ipcs")
		if out := w.run("python", ref, "ipcs", "python3", "-c", "print(6*7)"); out != "42\n" {
			t.Errorf("output %q", out)
		}
	})
}

// TestKuboAway stops, starts and kills the Kubo that is a daemon's node: reads wait for it, and
// fail when it does not come; what is on disk needs neither, also when the daemon starts.
func TestKuboAway(t *testing.T) {
	t.Parallel() // most of the time it waits
	labtest.Tools(t, tools.Kubo...)
	const timeout = 15 * time.Second
	w := newWorld(t, "kuboaway", 0)
	ref := w.convert(w.push(labtest.Image(t, "small")))
	source, err := w.source.Status(t.Context())
	w.must(err)
	on, kubo := w.onKubo("reader", lab.DaemonOptions{Metrics: true, Timeout: timeout}, source.Addrs...)
	on.pull(ref, "ipcs")
	c := on.start("c", ref)
	read := func(name, file string) (string, error) { return c.exec(t.Context(), name, "cat", file) }
	here, err := read("here", readBefore)
	w.must(err)

	w.must(kubo.Stop())
	waits := c.begin(t.Context(), "waits", "cat", "/usr/share/common-licenses/GPL-3")
	if again, err := read("again", readBefore); err != nil || again != here {
		t.Errorf("what is on disk: %q, %v", again, err)
	}
	on.until("Kubo is missed", func(s *lab.Status) bool { return s.Kubo.Error != "" && !s.Peers[0].Connected })
	if code, body := on.readyz(); code != http.StatusServiceUnavailable || !strings.Contains(body, "no daemon answers") {
		t.Errorf("/readyz: %d %s", code, body)
	}
	select {
	case got := <-waits:
		t.Fatalf("the read did not wait: %+v", got)
	default:
	}
	w.must(kubo.Start(t.Context()))
	if got := <-waits; got.err != nil || !strings.Contains(got.out, "GNU GENERAL PUBLIC LICENSE") {
		t.Errorf("Kubo came back, and the read says %d bytes, %v", len(got.out), got.err)
	}

	kubo.Kill()
	if _, err := read("fails", "/usr/bin/dpkg"); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("Kubo did not come back, and a read says %v", err)
	}
	on.logged("start Kubo (ipfs daemon), or set node.kubo")
	w.must(on.daemon.Stop())
	w.must(on.daemon.Start(t.Context()))
	on.reached()
	if again, err := read("after", readBefore); err != nil || again != here {
		t.Errorf("with neither Kubo nor the daemon that read it: %q, %v", again, err)
	}
	if out := on.run("new", ref, "ipcs", "cat", readBefore); out != here {
		t.Errorf("a new container says %q", out)
	}
	w.must(kubo.Start(t.Context()))
	if _, err := read("comes", "/usr/bin/dpkg"); err != nil {
		t.Errorf("Kubo is back: %v", err)
	}

	w.must(w.source.Stop())
	if _, err := read("lacks", "/usr/bin/perl"); err == nil || !strings.Contains(err.Error(), "Input/output error") {
		t.Errorf("Kubo has no peer any more, and a read says %v", err)
	}
	on.logged("nor by its peers")
}
