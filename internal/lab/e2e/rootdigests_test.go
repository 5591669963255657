package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// byRoots converts an image that containerd has to one whose digests are those of roots.
func (w *world) byRoots(ref, to string) (string, error) {
	w.t.Helper()
	return lab.Output(w.containerd.Command(w.t.Context(), "convert", "--root-digests", "--plain-http", "--json",
		"--ipfs-api", w.daemon.API, "--containerd-address", w.containerd.Address, "containerd:"+ref, to))
}

// TestRootDigests writes an image whose digests are those of roots into containerd, as in 2019. Its store has the blobs by these, and the image runs.
func TestRootDigests(t *testing.T) {
	w := newWorldWith(t, "rootdig", options{loopback: true})
	ref := w.push(labtest.Image(t, "small"))
	other := w.onContent("other")
	other.pull(ref, "overlayfs")
	target := strings.TrimSuffix(ref, "latest") + "roots"
	if _, err := other.byRoots(ref, target); err == nil || !strings.Contains(err.Error(), "pass containerd:REF as the target") {
		t.Errorf("into a registry: %v", err)
	}
	out, err := other.byRoots(ref, "containerd:"+target)
	w.must(err)
	var report struct {
		Manifests []struct {
			Layers []struct{ Source, Digest, Cid string }
		}
	}
	w.must(json.Unmarshal([]byte(out), &report))
	others := 0
	for _, l := range report.Manifests[0].Layers {
		if l.Source != l.Digest {
			others++
		}
		sum, err := lab.Output(other.containerd.Shell(t.Context(), "ctr content get "+l.Digest+" | sha256sum"))
		w.must(err)
		if !strings.HasPrefix("sha256:"+sum, l.Source) {
			t.Errorf("content get %s gives %s, the layer is %s", l.Digest, sum, l.Source)
		}
	}
	if others == 0 {
		t.Error("no layer has another digest than that of its bytes")
	}
	other.ctr("image", "rm", "--sync", ref)
	if out := other.run("runs", target, "native", "cat", "/etc/os-release"); !strings.Contains(out, "ID=debian\n") { // unpacked anew
		t.Errorf("output %q", out)
	}
	// containerd's own store knows no such digests.
	w.pull(ref, "overlayfs")
	if _, err := w.byRoots(ref, "containerd:"+target); err == nil || !strings.Contains(err.Error(), "does not resolve") {
		t.Errorf("into containerd's own store: %v", err)
	}
}
