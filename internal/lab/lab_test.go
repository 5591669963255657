package lab_test

import (
	"context"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestStock runs an image with stock containerd on a machine with a limited link:
// everything but ipcs itself.
func TestStock(t *testing.T) {
	ctx := t.Context()
	l := labtest.Open(t, "stock", 1000)
	store, node := labtest.Machine(t, l, "registry"), labtest.Machine(t, l, "node")
	registry, err := store.StartRegistry(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ref := registry.Addr + "/debian:latest"
	if _, err := images.Copy(ctx, "oci:"+labtest.Image(t, "debian"), ref, store.HTTPClient()); err != nil {
		t.Fatal(err)
	}
	c, err := node.StartContainerd(ctx, lab.ContainerdOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lab.Output(c.Ctr(ctx, "image", "pull", "--plain-http", ref)); err != nil {
		t.Fatal(err)
	}
	out, err := lab.Output(c.Shell(ctx, "ctr run --rm "+ref+" stock python3 -c 'print(6*7)'"))
	if err != nil || strings.TrimSpace(out) != "42" {
		t.Fatalf("ctr run: %q, %v", out, err)
	}
	received, err := node.Received()
	if err != nil || received < 50<<20 {
		t.Errorf("received %d bytes, %v; the image is larger", received, err)
	}
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// TestMachinesAreApart finds that a machine reaches the other, and that nothing else
// reaches them.
func TestMachinesAreApart(t *testing.T) {
	ctx := t.Context()
	l := labtest.Open(t, "apart", 100)
	store, node := labtest.Machine(t, l, "registry"), labtest.Machine(t, l, "node")
	registry, err := store.StartRegistry(ctx)
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + registry.Addr + "/v2/"
	resp, err := node.HTTPClient().Get(url)
	if err != nil {
		t.Fatalf("from the other machine: %v", err)
	}
	resp.Body.Close()
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := node.HTTPClient().Do(req); err == nil {
		resp.Body.Close()
		t.Error("a cancelled request succeeded")
	}
	if _, err := lab.Open(t.Context(), lab.Options{Name: "apart", Dir: t.TempDir()}); err == nil {
		t.Error("two labs of one name")
	}
}

// TestTemporary finds that what commands mount or write for a moment is in the machine's
// folders, where the lab clears it away.
func TestTemporary(t *testing.T) {
	m := labtest.Machine(t, labtest.Open(t, "temp", 0), "node")
	out, err := lab.Output(m.Command(t.Context(), "sh", "-c", `dirname $(mktemp) "$XDG_RUNTIME_DIR/x"`))
	if want := m.Dir() + "/tmp\n" + m.State() + "\n"; err != nil || out != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
}

// TestClearsAfterAKill opens a lab whose state is that of a process that was killed.
func TestClearsAfterAKill(t *testing.T) {
	opts := labtest.Options(t, "killed", 100)
	l, err := lab.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	m := add(t, l, "node", lab.MachineOptions{Memory: true})
	if _, err := m.StartRegistry(t.Context()); err != nil {
		t.Fatal(err)
	}
	mountInside(t, m)
	if err := l.Abandon(); err != nil {
		t.Fatal(err)
	}
	if l.Leftovers() == nil {
		t.Fatal("nothing is left after no Close")
	}
	opts.Rate = 0 // nothing of its own then runs
	again, err := lab.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Leftovers(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.Dir()); err == nil {
		t.Errorf("%s is still there", m.Dir())
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
