package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
	"github.com/hinshun/ipcs/packaging"
)

// published is an image that was converted to ipfs:.
type published struct {
	Cid    string
	Digest string
}

// toIPFS converts a layout to ipfs:, on a machine and the node at api. What is printed is the
// CID and nothing else.
func (w *world) toIPFS(m *lab.Machine, api, layout string) published {
	w.t.Helper()
	args := []string{"--mediatype", "unixfs", "--ipfs-api", api, "oci:" + layout, "ipfs:"}
	printed, err := lab.Output(m.Command(w.t.Context(), "convert", args...))
	w.must(err)
	out, err := lab.Output(m.Command(w.t.Context(), "convert", append(args, "--json")...))
	w.must(err)
	var p published
	w.must(json.Unmarshal([]byte(out), &p))
	if printed != p.Cid+"\n" {
		w.t.Errorf("convert printed %q, and the CID is %s", printed, p.Cid)
	}
	return p
}

// consumeFrom starts the consumer's daemon, which answers as a registry, and its containerd, to
// which that is the only one.
func (w *world) consumeFrom(sandbox string, peers ...string) {
	w.t.Helper()
	var err error
	w.daemon, err = w.consume.StartDaemon(w.t.Context(), lab.DaemonOptions{Peers: peers, Registry: true})
	w.must(err)
	w.containerd, err = w.consume.StartContainerd(w.t.Context(), lab.ContainerdOptions{
		Daemon: w.daemon, CRI: &lab.CRI{IPFS: w.daemon.Registry, Sandbox: sandbox},
	})
	w.must(err)
	w.t.Cleanup(func() {
		if err := w.containerd.Stop(context.Background()); err != nil {
			w.t.Errorf("stop containerd: %v", err)
		}
		if w.t.Failed() {
			w.logs()
		}
	})
}

// TestNoRegistry has two machines, and no registry anywhere: what one converts the other pulls
// from its own daemon, which has it from its peer, with ctr and as a kubelet does.
func TestNoRegistry(t *testing.T) {
	labtest.Build(t)
	w := &world{t: t, lab: labtest.Open(t, "noreg", 1000)}
	w.publisher, w.consume = labtest.Machine(t, w.lab, "publisher"), labtest.Machine(t, w.lab, "consumer")
	var err error
	w.source, err = w.publisher.StartDaemon(t.Context(), lab.DaemonOptions{})
	w.must(err)
	image := w.toIPFS(w.publisher, w.source.API, labtest.Image(t, "small"))
	pause := w.toIPFS(w.publisher, w.source.API, w.sandboxLayout())
	status, err := w.source.Status(t.Context())
	w.must(err)
	w.consumeFrom(packaging.Host+"/"+pause.Cid+":latest", status.Addrs...)
	t.Run("ctr", func(t *testing.T) { w.with(t).pullsWithCtr(image) })
	t.Run("CRI", func(t *testing.T) { w.with(t).pullsWithCRI(image) })
	t.Run("third", func(t *testing.T) { w.with(t).thirdPulls(image) })
}

// pullsWithCtr pulls an image by each of its names, and runs it.
func (w *world) pullsWithCtr(image published) {
	w.t.Helper()
	for i, ref := range []string{
		w.daemon.Registry + "/ipfs/" + image.Cid + ":latest",
		w.daemon.Registry + "/ipfs/" + image.Cid + "@" + image.Digest,
		w.daemon.Registry + "/ipfs@" + image.Digest,
		packaging.Host + "/" + image.Cid + ":latest",
	} {
		before, err := w.daemon.Status(w.t.Context())
		w.must(err)
		args := []string{"image", "pull", "--snapshotter", "ipcs", ref}
		if strings.HasPrefix(ref, packaging.Host) {
			args = append(args[:2], append([]string{"--hosts-dir", w.containerd.HostsDir()}, args[2:]...)...)
		}
		start := time.Now()
		_, err = lab.Output(w.containerd.Ctr(w.t.Context(), args...))
		w.must(err)
		w.t.Logf("pulled %s in %v", ref, time.Since(start).Round(time.Millisecond))
		w.in(lab.Namespace, ref).lazy()
		if out := w.run(fmt.Sprint("c", i), ref, "ipcs", "cat", "/etc/os-release"); !strings.Contains(out, "Debian") {
			w.t.Errorf("%s: %q", ref, out)
		}
		after, err := w.daemon.Status(w.t.Context())
		w.must(err)
		if i == 0 && after.Fetch.Files <= before.Fetch.Files {
			w.t.Errorf("files fetched before and after: %d, %d", before.Fetch.Files, after.Fetch.Files)
		}
		// Its blobs are all here, also for those who pull in another way.
		_, err = lab.Output(w.containerd.Ctr(w.t.Context(), "image", "check", "--snapshotter", "ipcs", "name=="+ref))
		w.must(err)
		_, err = lab.Output(w.containerd.Ctr(w.t.Context(), "image", "rm", "--sync", ref))
		w.must(err)
	}
	w.in(lab.Namespace, "").gone()
	_, err := lab.Output(w.containerd.Ctr(w.t.Context(), "content", "fetch", w.daemon.Registry+"/ipfs/"+image.Cid+":latest"))
	w.must(err)
	_, err = lab.Output(w.containerd.Ctr(w.t.Context(), "image", "rm", "--sync", w.daemon.Registry+"/ipfs/"+image.Cid+":latest"))
	w.must(err)
	_, err = lab.Output(w.containerd.Ctr(w.t.Context(), "image", "pull", "--snapshotter", "ipcs", w.daemon.Registry+"/ipfs/"+image.Cid+":other"))
	if err == nil || !strings.Contains(err.Error(), "not found") {
		w.t.Errorf("a tag that there is not: %v", err)
	}
}

// pullsWithCRI does with an image what a kubelet does.
func (w *world) pullsWithCRI(image published) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 3*time.Minute)
	defer cancel()
	k := w.kubelet()
	for _, ref := range []string{
		packaging.Host + "/" + image.Cid + ":latest",
		w.daemon.Registry + "/ipfs/" + image.Cid + ":latest",
		w.daemon.Registry + "/ipfs@" + image.Digest,
	} {
		id := k.pull(ctx, ref)
		w.in(kubernetes, ref).lazy()
		pod := k.runPod(ctx)
		container := pod.start(ctx, id)
		pod.readUnfetched(ctx, container)
		pod.stop(ctx, container)
		pod.remove(ctx)
		_, err := k.image.RemoveImage(ctx, &cri.RemoveImageRequest{Image: &cri.ImageSpec{Image: ref}})
		w.must(err)
	}
}

// thirdPulls stops the publisher: who has pulled an image has what others need to pull it.
func (w *world) thirdPulls(image published) {
	w.t.Helper()
	// What was removed before is freed after a while.
	_, err := lab.Output(w.containerd.Ctr(w.t.Context(), "image", "pull", "--snapshotter", "ipcs", w.daemon.Registry+"/ipfs/"+image.Cid+":latest"))
	w.must(err)
	status, err := w.daemon.Status(w.t.Context())
	w.must(err)
	w.must(w.source.Stop())
	third := labtest.Machine(w.t, w.lab, "third")
	d, err := third.StartDaemon(w.t.Context(), lab.DaemonOptions{Peers: status.Addrs, Registry: true, Timeout: 5 * time.Second})
	w.must(err)
	c, err := third.StartContainerd(w.t.Context(), lab.ContainerdOptions{Daemon: d})
	w.must(err)
	defer func() { w.must(c.Stop(context.Background())) }()
	ref := d.Registry + "/ipfs/" + image.Cid + ":latest"
	_, err = lab.Output(c.Ctr(w.t.Context(), "image", "pull", "--snapshotter", "ipcs", ref))
	w.must(err)
	_, err = c.Client.GetImage(c.Context(w.t.Context()), ref)
	w.must(err)
}

// TestNoRegistryKubo publishes on Kubo. One pin there keeps all of an image, and what ipfs gets is
// an OCI image layout.
func TestNoRegistryKubo(t *testing.T) {
	labtest.Build(t)
	labtest.Tools(t, tools.Kubo...)
	w := &world{t: t, lab: labtest.Open(t, "noregk", 1000)}
	w.publisher, w.consume = labtest.Machine(t, w.lab, "publisher"), labtest.Machine(t, w.lab, "consumer")
	kubo, err := w.publisher.StartKubo(t.Context(), lab.KuboOptions{})
	w.must(err)
	w.source, err = w.publisher.StartDaemon(t.Context(), lab.DaemonOptions{}) // for its log alone
	w.must(err)
	image := w.toIPFS(w.publisher, kubo.API, labtest.Image(t, "small"))
	pause := w.toIPFS(w.publisher, kubo.API, w.sandboxLayout())
	w.onlyPin(kubo, image.Cid, pause.Cid)
	w.consumeFrom(packaging.Host+"/"+pause.Cid+":latest", kubo.Peer)
	w.pullsWithCtr(image)

	dir := filepath.Join(w.publisher.Dir(), "got")
	_, err = lab.Output(kubo.Command(t.Context(), "get", "--output", dir, "/ipfs/"+image.Cid))
	w.must(err)
	out, err := lab.Output(w.publisher.Command(t.Context(), "convert", "--verify", "--ipfs-api", kubo.API, "oci:"+dir))
	w.must(err)
	if !strings.Contains(out, "manifest "+image.Digest+" made from") {
		t.Errorf("verify of what ipfs get wrote: %s", out)
	}
	added, err := lab.Output(kubo.Command(t.Context(), append(profile, dir)...))
	w.must(err)
	if strings.TrimSpace(added) != image.Cid {
		t.Errorf("ipfs add makes %s of it, it was %s", strings.TrimSpace(added), image.Cid)
	}
}

// onlyPin removes all pins but those of the images' CIDs, and collects the garbage.
func (w *world) onlyPin(kubo *lab.Kubo, keep ...string) {
	w.t.Helper()
	ctx := w.t.Context()
	out, err := lab.Output(kubo.Command(ctx, "pin", "ls", "--type=recursive", "--quiet"))
	w.must(err)
	found, removed := 0, []string{"pin", "rm"}
	for _, pin := range strings.Fields(out) {
		if strings.Contains(strings.Join(keep, " "), pin) {
			found++
		} else {
			removed = append(removed, pin)
		}
	}
	if found != len(keep) || len(removed) == 2 {
		w.t.Fatalf("of %q, %d are pinned, and %q besides", keep, found, removed[2:])
	}
	_, err = lab.Output(kubo.Command(ctx, removed...))
	w.must(err)
	_, err = lab.Output(kubo.Command(ctx, "repo", "gc", "--quiet"))
	w.must(err)
}

// TestRegistryFails asks for an image that no peer has: the pull fails when the node gives up, and
// says what is missing.
func TestRegistryFails(t *testing.T) {
	labtest.Build(t)
	l := labtest.Open(t, "noregf", 0)
	m := labtest.Machine(t, l, "machine")
	d, err := m.StartDaemon(t.Context(), lab.DaemonOptions{Registry: true, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.StartContainerd(t.Context(), lab.ContainerdOptions{Daemon: d})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	const nobody = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf353"
	ref := d.Registry + "/ipfs/" + nobody + ":latest"
	start := time.Now()
	if _, err := lab.Output(c.Ctr(t.Context(), "image", "pull", "--snapshotter", "ipcs", ref)); err == nil || !strings.Contains(err.Error(), ref+": not found") {
		t.Errorf("pull: %v", err)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("that took %v", took)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+d.Registry+"/v2/ipfs/"+nobody+"/manifests/latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusNotFound {
		t.Errorf("status %s", resp.Status)
	}
}
