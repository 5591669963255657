package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
)

// TestFound runs an image on a consumer that is told of no peer: it has the address of a router, or
// nothing at all, and what the image says. A consumer that takes no hints gets nothing.
func TestFound(t *testing.T) {
	t.Parallel() // most of the time it waits
	labtest.Build(t)
	for _, tt := range []struct {
		name    string
		router  bool
		hint    []string // flags of convert
		found   string   // how the consumer knows the publisher
		timeout time.Duration
	}{
		{name: "router", router: true, hint: []string{"--peer-hint", "none"}, found: "router", timeout: time.Minute},
		{name: "hint", found: "hint", timeout: time.Minute},
		{name: "nothing", hint: []string{"--peer-hint", "none"}, timeout: 3 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{t: t, lab: labtest.Open(t, "by"+tt.name[:4], 1000)}
			w.store = labtest.Machine(t, w.lab, "registry")
			w.publisher = labtest.Machine(t, w.lab, "publisher")
			w.consume = labtest.Machine(t, w.lab, "consumer")
			var err error
			w.registry, err = w.store.StartRegistry(t.Context())
			w.must(err)
			var opts lab.DaemonOptions
			if tt.router {
				// A daemon on a machine of its own, which has nothing.
				server := labtest.Machine(t, w.lab, "router")
				at := server.Addr() + ":8181"
				_, err := server.StartDaemon(t.Context(), lab.DaemonOptions{Routing: at})
				w.must(err)
				opts.Routers = []string{"http://" + at}
			}
			w.source, err = w.publisher.StartDaemon(t.Context(), opts)
			w.must(err)
			opts.Timeout = tt.timeout
			w.daemon, err = w.consume.StartDaemon(t.Context(), opts)
			w.must(err)
			w.containerd, err = w.consume.StartContainerd(t.Context(), lab.ContainerdOptions{Daemon: w.daemon})
			w.must(err)
			t.Cleanup(func() {
				if err := w.containerd.Stop(context.Background()); err != nil {
					t.Errorf("stop containerd: %v", err)
				}
				if t.Failed() {
					w.logs()
				}
			})
			w.runFound(tt.hint, tt.found)
		})
	}
}

// runFound converts an image on the publisher and runs it on the consumer.
func (w *world) runFound(hint []string, found string) {
	w.t.Helper()
	ref := w.push(labtest.Image(w.t, "busybox"))
	target := strings.TrimSuffix(ref, "latest") + "ipcs"
	args := append([]string{"--mediatype", "unixfs", "--plain-http", "--ipfs-api", w.source.API}, hint...)
	_, err := lab.Output(w.publisher.Command(w.t.Context(), "convert", append(args, ref, target)...))
	w.must(err)
	_, err = lab.Output(w.containerd.Ctr(w.t.Context(), "image", "pull", "--plain-http", "--snapshotter", "ipcs", target))
	if found == "" {
		if err == nil {
			w.t.Error("an image came from nobody")
		}
		return
	}
	w.must(err)
	if entries := w.tree(target, "ipcs"); len(entries) == 0 {
		w.t.Error("the image is empty")
	}
	published, err := w.source.Status(w.t.Context())
	w.must(err)
	status, err := w.daemon.Status(w.t.Context())
	w.must(err)
	for _, p := range status.Peers {
		if p.ID == published.ID && p.Connected && p.Found == found {
			return
		}
	}
	w.t.Errorf("the consumer has %+v, and not the publisher by %s", status.Peers, found)
}
