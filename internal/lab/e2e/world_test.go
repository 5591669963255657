// Package e2e tests ipcs as a whole: its own programs, stock containerd and a stock
// registry, on machines of their own. The oracle is what stock overlayfs shows of the
// same image.
package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/images"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tree"
)

// world is what most tests start from: a registry, a publisher that converts, and a
// consumer that runs.
type world struct {
	t                         testing.TB
	lab                       *lab.Lab
	store, publisher, consume *lab.Machine
	registry                  *lab.Registry
	source, daemon            *lab.Daemon // the publisher's and the consumer's
	containerd                *lab.Containerd
}

// options of a world; zero ones do for most.
type options struct {
	timeout  time.Duration // of the consumer's reads; default 30 s
	loopback bool          // no network of its own: this process reaches the registry, too
	limit    int64         // bytes of the consumer's store
	cri      bool          // the consumer's containerd has its CRI plugin
	pods     bool          // with cri: pods have networks, and the registry has all images
	unpack   bool          // the consumer's containerd unpacks ipcs images on overlayfs and native
}

// newWorld starts it. The name tells it apart from those of tests that run beside it.
func newWorld(t testing.TB, name string, timeout time.Duration) *world {
	t.Helper()
	return newWorldWith(t, name, options{timeout: timeout})
}

func newWorldWith(t testing.TB, name string, opts options) *world {
	t.Helper()
	labtest.Build(t)
	ctx := t.Context()
	rate := 1000
	if opts.loopback {
		rate = 0
	}
	w := &world{t: t, lab: labtest.Open(t, name, rate)}
	w.store = labtest.Machine(t, w.lab, "registry")
	w.publisher = labtest.Machine(t, w.lab, "publisher")
	w.consume = labtest.Machine(t, w.lab, "consumer")
	var err error
	w.registry, err = w.store.StartRegistry(ctx)
	w.must(err)
	w.source, err = w.publisher.StartDaemon(ctx, lab.DaemonOptions{})
	w.must(err)
	status, err := w.source.Status(ctx)
	w.must(err)
	w.daemon, err = w.consume.StartDaemon(ctx, lab.DaemonOptions{Peers: status.Addrs, Timeout: opts.timeout, Limit: opts.limit})
	w.must(err)
	run := lab.ContainerdOptions{Daemon: w.daemon, Unpack: opts.unpack}
	if opts.cri {
		run.CRI = &lab.CRI{Registry: w.registry.Addr, Sandbox: w.sandbox(), Mirror: opts.pods, Network: opts.pods}
	}
	w.containerd, err = w.consume.StartContainerd(ctx, run)
	w.must(err)
	t.Cleanup(func() {
		if err := w.containerd.Stop(context.Background()); err != nil {
			t.Errorf("stop containerd: %v", err)
		}
		if t.Failed() {
			w.logs()
		}
	})
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// logs shows the ends of the daemons' logs.
func (w *world) logs() {
	for _, d := range []*lab.Daemon{w.source, w.daemon} {
		w.t.Logf("%s", d.Tail())
	}
}

// push puts a layout into the registry and returns its reference.
func (w *world) push(layout string) string {
	w.t.Helper()
	// With the folder's name: two folders may hold an image of one name.
	name := filepath.Base(filepath.Dir(layout)) + "/" + filepath.Base(layout)
	ref := w.registry.Addr + "/" + strings.ToLower(name) + ":latest"
	_, err := images.Copy(w.t.Context(), "oci:"+layout, ref, w.store.HTTPClient())
	w.must(err)
	return ref
}

// convert converts an image of the registry on the publisher, and returns the
// reference of the result.
func (w *world) convert(ref string) string {
	w.t.Helper()
	return w.convertWith(ref)
}

// convertWith does so with these flags as well.
func (w *world) convertWith(ref string, flags ...string) string {
	w.t.Helper()
	target := ref[:len(ref)-len("latest")] + "ipcs"
	args := append([]string{"--mediatype", "unixfs", "--plain-http", "--ipfs-api", w.source.API, "--seeds=false"}, flags...) // what is given later counts
	_, err := lab.Output(w.publisher.Command(w.t.Context(), "convert", append(args, ref, target)...))
	w.must(err)
	return target
}

// pull pulls an image on the consumer.
func (w *world) pull(ref, snapshotter string) {
	w.t.Helper()
	_, err := lab.Output(w.containerd.Ctr(w.t.Context(), "image", "pull", "--plain-http", "--snapshotter", snapshotter, ref))
	w.must(err)
}

// tree reads the tree that a container on the image sees.
func (w *world) tree(ref, snapshotter string) []tree.Entry {
	w.t.Helper()
	v, err := w.containerd.View(w.t.Context(), ref, snapshotter)
	w.must(err)
	entries, err := tree.Read(v.Root)
	w.must(err)
	w.must(v.Close(w.t.Context()))
	return entries
}

// external are images of the corpus that may stand on the machine beside the
// project's own: IPCS_CORPUS names the folder of their layouts.
func external(t testing.TB) []string {
	dir := os.Getenv("IPCS_CORPUS")
	if dir == "" {
		return nil
	}
	found, err := filepath.Glob(filepath.Join(dir, "*", "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Dir(found[i])
	}
	return found
}
