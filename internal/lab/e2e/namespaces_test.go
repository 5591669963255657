package e2e

import (
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestNamespaces has two namespaces of one containerd share an image: what one removes
// the other keeps, and can be pulled again.
func TestNamespaces(t *testing.T) {
	w := newWorld(t, "spaces", 0)
	ref := w.convert(w.push(labtest.Image(t, "small")))
	all := []string{lab.Namespace, kubernetes}
	for _, ns := range all {
		w.ctr("-n", ns, "image", "pull", "--plain-http", "--snapshotter", "ipcs", ref)
		w.ctr("-n", ns, "run", "--detach", "--snapshotter", "ipcs", ref, w.id("c"), "sleep", "infinity")
		w.in(ns, ref).lazy()
	}
	read := func(ns, exec, file string) {
		t.Helper()
		if out := w.ctr("-n", ns, "task", "exec", "--exec-id", exec, w.id("c"), "cat", file); !strings.Contains(out, "GNU GENERAL PUBLIC LICENSE") {
			t.Errorf("%s of %s: %.80q", file, ns, out)
		}
	}
	remove := func(ns string) {
		t.Helper()
		w.ctr("-n", ns, "task", "rm", "--force", w.id("c"))
		w.ctr("-n", ns, "container", "rm", w.id("c"))
		w.ctr("-n", ns, "image", "rm", "--sync", ref)
		w.in(ns, ref).gone()
	}
	read(lab.Namespace, "warm", fetched)
	remove(lab.Namespace)
	w.in(kubernetes, ref).lazy()
	read(kubernetes, "warm", fetched)
	read(kubernetes, "cold", unfetched)

	w.ctr("-n", lab.Namespace, "image", "pull", "--plain-http", "--snapshotter", "ipcs", ref)
	if out := w.run("again", ref, "ipcs", "echo", "runs"); out != "runs\n" {
		t.Errorf("output %q", out)
	}
	remove(kubernetes)
	if out := w.run("alone", ref, "ipcs", "cat", unfetched); !strings.Contains(out, "GNU GENERAL PUBLIC LICENSE") {
		t.Errorf("output %.80q", out)
	}
}

// ctr runs ctr(1) against the consumer's containerd.
func (w *world) ctr(args ...string) string {
	w.t.Helper()
	out, err := lab.Output(w.containerd.Ctr(w.t.Context(), args...))
	w.must(err)
	return out
}
