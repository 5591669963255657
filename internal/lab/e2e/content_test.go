package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// onContent returns a machine whose containerd has its content in the daemon's store, with peers.
func (w *world) onContent(name string, peers ...string) *world {
	w.t.Helper()
	other := *w
	ctx := w.t.Context()
	other.consume = labtest.Machine(w.t, w.lab, name)
	var err error
	other.daemon, err = other.consume.StartDaemon(ctx, lab.DaemonOptions{Peers: peers, Timeout: 10 * time.Second})
	w.must(err)
	other.containerd, err = other.consume.StartContainerd(ctx, lab.ContainerdOptions{Daemon: other.daemon, Content: true})
	w.must(err)
	w.t.Cleanup(func() {
		if err := other.containerd.Stop(context.Background()); err != nil {
			w.t.Errorf("stop containerd: %v", err)
		}
		if w.t.Failed() {
			other.logs()
		}
	})
	return &other
}

// contents lists what containerd has, by digest and size.
func (w *world) contents() (list []string) {
	w.t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(w.ctr("content", "ls")), "\n")[1:] {
		fields := strings.Fields(line)
		list = append(list, fields[0]+" "+fields[1])
	}
	slices.Sort(list)
	return list
}

// runsOn pulls an image on a snapshotter, with the content that the pull needs, and runs it.
func (w *world) runsOn(ref, snapshotter string) {
	w.t.Helper()
	w.pull(ref, snapshotter)
	if out := w.run("runs", ref, snapshotter, "cat", "/etc/os-release"); !strings.Contains(out, "ID=debian\n") {
		w.t.Errorf("%s on %s: output %q", ref, snapshotter, out)
	}
}

// empties removes an image, and waits until the daemon's store has given back what it took.
func (w *world) empties(refs ...string) {
	w.t.Helper()
	w.ctr(append([]string{"image", "rm", "--sync"}, refs...)...)
	deadline := time.Now().Add(time.Minute)
	for {
		status, err := w.daemon.Status(w.t.Context())
		w.must(err)
		left := w.ctr("content", "ls", "-q")
		if status.Store.Bytes == 0 && left == "" {
			return
		}
		if time.Now().After(deadline) {
			w.t.Errorf("no image is left, and %d bytes are; content: %q", status.Store.Bytes, left)
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// TestContent has containerd's content in the daemon's store: ordinary images are what they are with its own store, in every command; and go as a whole.
func TestContent(t *testing.T) {
	w := newWorldWith(t, "content", options{loopback: true})
	ref := w.push(labtest.Image(t, "small"))
	w.pull(ref, "overlayfs")
	want := w.contents()
	w = w.onContent("other")
	w.runsOn(ref, "overlayfs")
	if got := w.contents(); !slices.Equal(got, want) {
		t.Errorf("containerd's own store has\n%s\nand this\n%s", strings.Join(want, "\n"), strings.Join(got, "\n"))
	}
	file := filepath.Join(t.TempDir(), "image.tar")
	w.ctr("image", "export", file, ref)
	w.ctr("image", "rm", "--sync", ref)
	w.ctr("image", "import", "--snapshotter", "overlayfs", file)
	got := w.contents() // and the index of the archive
	for _, blob := range want {
		if !slices.Contains(got, blob) {
			t.Errorf("after export and import, %s is not in\n%s", blob, strings.Join(got, "\n"))
		}
	}
	again := ref + "-again"
	w.ctr("image", "tag", ref, again)
	w.ctr("image", "push", "--plain-http", again)
	for _, line := range want {
		d, _, _ := strings.Cut(line, " ")
		sum, err := lab.Output(w.containerd.Shell(t.Context(), "ctr content get "+d+" | sha256sum"))
		w.must(err)
		if !strings.HasPrefix("sha256:"+sum, d) {
			t.Errorf("content get %s gives %s", d, sum)
		}
	}
	w.empties(ref, again)
	w.runsOn(again, "overlayfs")
	w.survives(again, want)
}

// survives kills the daemon and starts it again: nothing of the content is lost, and containerd goes on.
func (w *world) survives(ref string, want []string) {
	w.t.Helper()
	w.daemon.Kill()
	w.must(w.daemon.Start(w.t.Context()))
	if got := w.contents(); !slices.Equal(got, want) {
		w.t.Errorf("the daemon was killed; it has\n%s", strings.Join(got, "\n"))
	}
	w.ctr("image", "check", "name=="+ref)
	w.ctr("content", "get", strings.Fields(want[0])[0])
	w.empties(ref)
}

// TestChunked converts an image to chunked blobs. Who has this store gets its content without a byte from the registry, and reads it from the publisher; who
// has not pulls it as any other.
func TestChunked(t *testing.T) {
	w := newWorldWith(t, "chunked", options{loopback: true})
	ref := w.push(labtest.Image(t, "small"))
	target := strings.TrimSuffix(ref, "latest") + "chunked"
	out, err := lab.Output(w.publisher.Command(t.Context(), "convert", "--plain-http", "--ipfs-api", w.source.API, "--json", ref, target))
	w.must(err)
	var report struct {
		Manifests []struct {
			Layers []struct {
				Source, Digest, Cid string
				Bytes               int64
			}
		}
	}
	w.must(json.Unmarshal([]byte(out), &report))
	var bytes int64
	for _, l := range report.Manifests[0].Layers {
		if bytes += l.Bytes; l.Source != l.Digest {
			t.Errorf("layer %s became %s", l.Source, l.Digest)
		}
	}
	status, err := w.source.Status(t.Context())
	w.must(err)
	other := w.onContent("other", status.Addrs...)
	other.ctr("content", "fetch", "--plain-http", target)
	if status, err := other.daemon.Status(t.Context()); err != nil || status.Fetch.Bytes > 0 {
		t.Errorf("%d bytes are fetched before anybody reads: %v", status.Fetch.Bytes, err)
	}
	for _, l := range report.Manifests[0].Layers {
		if held := other.ctr("content", "ls"); !strings.Contains(held, l.Digest) {
			t.Errorf("layer %s is not in the content", l.Digest)
		}
	}
	w.must(w.registry.Stop())
	if out := other.run("runs", target, "overlayfs", "cat", "/etc/os-release"); !strings.Contains(out, "ID=debian\n") {
		t.Errorf("output %q", out)
	}
	status, err = other.daemon.Status(t.Context())
	w.must(err)
	if status.Fetch.Bytes < bytes {
		t.Errorf("%d bytes are fetched of %d", status.Fetch.Bytes, bytes)
	}
}

// TestContentBuildKit builds with stock buildkitd on a containerd whose content is in the daemon's store: an image, and again from the cache that the first build has exported, when
// nothing else of it is left.
func TestContentBuildKit(t *testing.T) {
	labtest.Tools(t, tools.BuildKit...)
	w := newWorldWith(t, "contbld", options{loopback: true})
	base := w.push(labtest.Image(t, "busybox"))
	w = w.onContent("builder")
	b, err := w.containerd.StartBuildKit(t.Context(), "overlayfs", w.registry.Addr)
	w.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", b.Tail())
		}
		if err := b.Stop(); err != nil {
			t.Error(err)
		}
	})
	dir := t.TempDir()
	w.must(os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM "+base+"\nRUN echo 1 >/made\nCOPY copied /copied\n"), 0o600))
	w.must(os.WriteFile(filepath.Join(dir, "copied"), []byte("copied\n"), 0o644))
	target, cache := w.registry.Addr+"/built:latest", w.registry.Addr+"/built:cache"
	build := func(args ...string) string {
		cmd := b.Command(t.Context(), append([]string{"build", "--progress", "plain", "--frontend", "dockerfile.v0", "--local", "context=" + dir, "--local", "dockerfile=" + dir,
			"--output", "type=image,name=" + target + ",push=true,registry.insecure=true"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
		return string(out)
	}
	build("--export-cache", "type=registry,ref="+cache+",mode=max,registry.insecure=true")
	_, err = lab.Output(b.Command(t.Context(), "prune", "--all"))
	w.must(err)
	if out := build("--import-cache", "type=registry,ref="+cache+",registry.insecure=true"); !strings.Contains(out, "CACHED") {
		t.Errorf("nothing came of the cache:\n%s", out)
	}
	w.pull(target, "overlayfs")
	w.works(target, "overlayfs")
}
