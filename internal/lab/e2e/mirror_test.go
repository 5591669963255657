package e2e

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// mirrored returns a machine whose containerd has its content in the daemon's store, and asks that before the registry.
func (w *world) mirrored(name, share string, peers ...string) *world {
	w.t.Helper()
	other := *w
	other.consume = labtest.Machine(w.t, w.lab, name)
	var err error
	other.daemon, err = other.consume.StartDaemon(w.t.Context(), lab.DaemonOptions{
		Peers: peers, Timeout: 10 * time.Second, Registry: true, Registries: []string{w.registry.Addr}, Share: share,
	})
	w.must(err)
	other.containerd, err = other.consume.StartContainerd(w.t.Context(), lab.ContainerdOptions{Daemon: other.daemon, Content: true, Mirrored: w.registry.Addr})
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

// pullMirrored pulls an image by way of the mirror, with further flags.
func (w *world) pullMirrored(ref string, flags ...string) time.Duration {
	w.t.Helper()
	start := time.Now()
	args := append([]string{"image", "pull", "--hosts-dir", w.containerd.HostsDir(), "--snapshotter", "overlayfs"}, flags...)
	_, err := lab.Output(w.containerd.Ctr(w.t.Context(), append(args, ref)...))
	w.must(err)
	return time.Since(start)
}

// mirror asks the machine's mirror for a manifest, or a blob, of an image, and returns the status.
func (w *world) mirror(ref, what string) int {
	w.t.Helper()
	client := w.consume.HTTPClient()
	defer client.CloseIdleConnections()
	host, name, _ := strings.Cut(ref, "/")
	name, _, _ = strings.Cut(name, ":")
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodHead, "http://"+w.daemon.Registry+"/mirror/v2/"+name+"/"+what+"?ns="+host, nil)
	w.must(err)
	resp, err := client.Do(req)
	w.must(err)
	w.must(resp.Body.Close())
	return resp.StatusCode
}

// blobsOf returns the paths in the registry of an image that a machine has, its manifest first.
func (w *world) blobsOf(ref string) (manifest string, all []string) {
	w.t.Helper()
	for _, line := range strings.Split(strings.TrimSpace(w.ctr("image", "ls", "name=="+ref)), "\n")[1:] {
		manifest = strings.Fields(line)[2]
	}
	all = []string{"manifests/" + manifest}
	for _, line := range w.contents() {
		d, _, _ := strings.Cut(line, " ")
		if d != manifest {
			all = append(all, "blobs/"+d)
		}
	}
	return manifest, all
}

// shares waits until others get an image of this machine.
func (w *world) shares(ref string, all []string) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for _, what := range all {
		for w.mirror(ref, what) != http.StatusOK {
			if time.Now().After(deadline) {
				w.t.Fatalf("others do not get %s", what)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// TestMirror has two machines pull ordinary images. The first has all from the registry, which is then gone, and the second all from the first. What was pulled with a password
// the first keeps for itself.
func TestMirror(t *testing.T) {
	w := newWorldWith(t, "mirror", options{loopback: true})
	ref, secret := w.push(labtest.Image(t, "small")), w.push(labtest.Image(t, "busybox"))
	first := w.mirrored("first", "")
	first.pullMirrored(ref)
	manifest, all := first.blobsOf(ref)
	first.shares(ref, all)
	status, err := first.daemon.Status(t.Context())
	w.must(err)
	second := w.mirrored("second", "", status.Addrs...)
	w.must(w.registry.Stop())
	at := strings.TrimSuffix(ref, ":latest") + "@" + manifest
	second.pullMirrored(at)
	if out := second.run("runs", at, "overlayfs", "cat", "/etc/os-release"); !strings.Contains(out, "ID=debian\n") {
		t.Errorf("output %q", out)
	}
	if got := second.contents(); len(got) != len(all) {
		t.Errorf("the second machine has %q, the first %q", got, all)
	}
	second.shares(ref, all) // what came from peers
	second.empties(at)
	w.private(secret, first, second)
}

// private has the registry want a password, and the first machine pull from it.
func (w *world) private(ref string, first, second *world) {
	w.t.Helper()
	registry, err := w.store.StartPrivateRegistry(w.t.Context(), "somebody", "secret")
	w.must(err)
	ref = strings.Replace(ref, w.registry.Addr, registry.Addr, 1)
	if code := first.mirror(ref, "tags/list"); code != http.StatusNotFound {
		w.t.Errorf("the mirror answers %d when it is asked for tags", code)
	}
	before := first.contents()
	first.pullMirrored(ref, "--user", "somebody:secret")
	manifest, all := first.blobsOf(ref)
	for _, what := range all {
		if strings.Contains(strings.Join(before, " "), what[strings.Index(what, "sha256:"):]) {
			continue
		}
		for range 3 { // it may be about to find it public
			if code := second.mirror(ref, what); code != http.StatusNotFound {
				w.t.Errorf("%s was pulled with a password, and another machine gets it: %d", what, code)
			}
			time.Sleep(300 * time.Millisecond)
		}
	}
	// Nor by its block, which it is named by.
	client := second.consume.HTTPClient()
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, "http://"+second.daemon.Registry+"/v2/ipfs/manifests/"+manifest, nil)
	w.must(err)
	resp, err := client.Do(req)
	w.must(err)
	w.must(resp.Body.Close())
	if resp.StatusCode != http.StatusNotFound {
		w.t.Errorf("the manifest was pulled with a password, and another machine gets its block: %d", resp.StatusCode)
	}
}
