package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// way is a way in which an image comes to containerd and goes.
type way struct {
	namespace    string
	pull, remove func(w *world, ref string)
}

// lazyWays are those in which ipcs images are not unpacked.
var lazyWays = map[string]way{
	"transfer service": {
		lab.Namespace,
		func(w *world, ref string) { w.pull(ref, "ipcs") },
		func(w *world, ref string) { w.ctr("image", "rm", "--sync", ref) },
	},
	"Go client": {
		lab.Namespace,
		func(w *world, ref string) { ways["Go client"](w, ref, "ipcs") },
		func(w *world, ref string) { w.ctr("image", "rm", "--sync", ref) },
	},
	"CRI": {
		kubernetes,
		func(w *world, ref string) { w.kubelet().pull(w.t.Context(), ref) },
		func(w *world, ref string) {
			_, err := w.kubelet().image.RemoveImage(w.t.Context(), &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}})
			w.must(err)
		},
	},
}

// TestWhole pulls an ipcs image lazily, in every way, and does with it what tools do with
// images: none needs to know that its files are not here.
func TestWhole(t *testing.T) {
	layout := labtest.Image(t, "small")
	w := newWorldWith(t, "whole", options{loopback: true, cri: true})
	ref := w.convert(w.push(layout))
	deep := w.convert(w.push(labtest.Image(t, "layers-10")))
	other := w.beside("other")
	for name, way := range lazyWays {
		t.Run(name, func(t *testing.T) {
			w, other := w.with(t), other.with(t)
			way.pull(w, deep)
			w.complete(way.namespace, deep)
			way.remove(w, deep)
			way.pull(w, ref)
			w.in(way.namespace, ref).lazy()
			w.complete(way.namespace, ref)
			w.exported(other, way.namespace, ref)
			w.pushed(other, way.namespace, ref)
			if got, want := w.restored(way.namespace, ref), configOf(t, layout); got != want {
				t.Errorf("converted back it has the config %s, the original's is %s", got, want)
			}

			tagged := w.registry.Addr + "/tagged:latest"
			w.ctr("-n", way.namespace, "image", "tag", ref, tagged)
			if way.namespace == lab.Namespace { // CRI removes an image with all its names
				way.remove(w, ref)
				w.complete(way.namespace, tagged)
			}
			w.ctr("-n", way.namespace, "image", "rm", "--sync", tagged)
			if way.namespace != lab.Namespace {
				w.complete(way.namespace, ref)
				way.remove(w, ref)
			}
			w.in(way.namespace, ref).gone()
		})
	}
}

// TestWholeAgain removes an image while a container keeps its snapshots, and pulls it again,
// with which containerd does not even ask the snapshotter for layers.
func TestWholeAgain(t *testing.T) {
	w := newWorldWith(t, "again", options{loopback: true})
	ref := w.convert(w.push(labtest.Image(t, "small")))
	w.pull(ref, "ipcs")
	c := w.start("c", ref)
	w.ctr("image", "rm", "--sync", ref)
	w.pull(ref, "ipcs")
	w.complete(lab.Namespace, ref)
	w.ctr("task", "rm", "--force", c.id)
	w.ctr("container", "rm", c.id)
	w.ctr("image", "rm", "--sync", ref)
	w.in(lab.Namespace, ref).gone()
}

// TestWholeWithoutSocket has a daemon that looks for containerd in the wrong place: images
// are pulled and run, the log says what to do, and with that done a further pull makes the
// image whole.
func TestWholeWithoutSocket(t *testing.T) {
	w := newWorldWith(t, "nosocket", options{loopback: true})
	ref := w.convert(w.push(labtest.Image(t, "small")))
	link := w.daemon.Containerd()
	w.must(os.Rename(link, link+".away"))
	w.must(w.daemon.Stop())
	w.must(w.daemon.Start(t.Context()))
	w.reached()
	w.pull(ref, "ipcs")
	if out := w.run("c", ref, "ipcs", "echo", "runs"); out != "runs\n" {
		t.Errorf("output %q", out)
	}
	log, err := os.ReadFile(w.daemon.Log())
	w.must(err)
	if n := strings.Count(string(log), "containerd.address"); n != 1 {
		t.Errorf("the log says %d times what to do, want once:\n%s", n, log)
	}
	w.must(os.Rename(link+".away", link))
	w.must(w.daemon.Stop())
	w.must(w.daemon.Start(t.Context()))
	w.reached()
	w.pull(ref, "ipcs")
	w.complete(lab.Namespace, ref)
}

// beside starts another machine with a daemon and a containerd, and returns the world with
// these as the consumer.
func (w *world) beside(name string) *world {
	w.t.Helper()
	other := *w
	ctx := w.t.Context()
	other.consume = labtest.Machine(w.t, w.lab, name)
	status, err := w.source.Status(ctx)
	w.must(err)
	other.daemon, err = other.consume.StartDaemon(ctx, lab.DaemonOptions{Peers: status.Addrs})
	w.must(err)
	other.containerd, err = other.consume.StartContainerd(ctx, lab.ContainerdOptions{Daemon: other.daemon})
	w.must(err)
	w.t.Cleanup(func() {
		if err := other.containerd.Stop(context.Background()); err != nil {
			w.t.Errorf("stop containerd: %v", err)
		}
	})
	return &other
}

// complete finds that ctr calls an image complete and unpacked.
func (w *world) complete(namespace, ref string) {
	w.t.Helper()
	filter := "name==\"" + ref + "\""
	if out := w.ctr("-n", namespace, "image", "check", "--quiet", "--snapshotter", "ipcs", filter); out != ref+"\n" {
		w.t.Errorf("%s is not complete:\n%s", ref, w.ctr("-n", namespace, "image", "check", "--snapshotter", "ipcs", filter))
	}
}

// runs finds that an image runs, and removes it.
func (w *world) runs(ref string) {
	w.t.Helper()
	w.in(lab.Namespace, ref).on("ipcs")
	if out := w.run("elsewhere", ref, "ipcs", "cat", "/etc/os-release"); !strings.Contains(out, "ID=debian\n") {
		w.t.Errorf("output %q", out)
	}
	w.ctr("image", "rm", "--sync", ref)
	w.in(lab.Namespace, ref).gone()
}

// exported exports an image, and runs it elsewhere.
func (w *world) exported(other *world, namespace, ref string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "image.tar")
	w.ctr("-n", namespace, "image", "export", file, ref)
	other.ctr("image", "import", "--snapshotter", "ipcs", file)
	other.runs(ref)
}

// pushed pushes an image to another repository, and runs it elsewhere.
func (w *world) pushed(other *world, namespace, ref string) {
	w.t.Helper()
	target := w.registry.Addr + "/" + strings.ReplaceAll(strings.ToLower(w.t.Name()), "_", "-") + ":copy"
	w.ctr("-n", namespace, "image", "push", "--plain-http", target, ref)
	other.pull(target, "ipcs")
	other.runs(target)
}

// restored converts an image of containerd back, and returns the digest of its config.
func (w *world) restored(namespace, ref string) string {
	w.t.Helper()
	layout := filepath.Join(w.t.TempDir(), "layout")
	_, err := lab.Output(w.consume.Command(w.t.Context(), "convert", "--mediatype", "tar", "--ipfs-api", w.daemon.API,
		"--containerd-address", w.containerd.Address, "--namespace", namespace, "containerd:"+ref, "oci:"+layout+":latest"))
	w.must(err)
	return configOf(w.t, layout)
}

// configOf returns the digest of the config of a layout's only manifest.
func configOf(t testing.TB, layout string) string {
	t.Helper()
	var index ocispec.Index
	decode(t, filepath.Join(layout, "index.json"), &index)
	for {
		if len(index.Manifests) != 1 {
			t.Fatalf("%s: %d manifests", layout, len(index.Manifests))
		}
		desc := index.Manifests[0]
		blob := filepath.Join(layout, "blobs", "sha256", desc.Digest.Encoded())
		if desc.MediaType == ocispec.MediaTypeImageIndex {
			index = ocispec.Index{}
			decode(t, blob, &index)
			continue
		}
		var manifest ocispec.Manifest
		decode(t, blob, &manifest)
		return manifest.Config.Digest.String()
	}
}

func decode(t testing.TB, file string, v any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestUserNamespaces runs containers with ids of their own: they see the owners that the
// image has, and nothing was copied for that.
func TestUserNamespaces(t *testing.T) {
	w := newWorldWith(t, "userns", options{loopback: true})
	original := w.push(labtest.Image(t, "small"))
	w.traversable()
	for kind, ref := range map[string]string{"ipcs": w.convert(original), "ordinary": original} {
		t.Run(kind, func(t *testing.T) {
			w := w.with(t)
			w.pull(ref, "ipcs")
			const script = "id -u; stat -c %u:%g /etc/shadow; echo x > /etc/x && stat -c %u:%g /etc/x; chown 1:2 /etc/hostname && stat -c %u:%g /etc/hostname; cat " + unfetched + " | head -n 1; cat /proc/self/uid_map"
			start := time.Now()
			out, err := w.output(t.Context(), []string{"run", "--rm", "--snapshotter", "ipcs", "--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536", "--remap-labels"},
				[]string{ref, w.id("c"), "sh", "-c", script})
			w.must(err)
			t.Logf("ran in %v", time.Since(start))
			want := "0 0:42 0:0 1:2 GNU GENERAL PUBLIC LICENSE 0 100000 65536"
			if got := strings.Join(strings.Fields(out), " "); got != want {
				t.Errorf("output %q, want %q", got, want)
			}
		})
	}
}

// traversable lets the ids of containers pass the folders that their roots are mounted in.
func (w *world) traversable() {
	w.t.Helper()
	for dir := w.consume.State(); dir != "/run" && dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		w.must(err)
		w.must(os.Chmod(dir, info.Mode().Perm()|0o011))
	}
	w.must(os.Chmod(filepath.Dir(w.containerd.Address), 0o711))
}
