package system

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/hinshun/ipcs/internal/lab"
)

// shareTime is how long it may take until others get what a machine has pulled.
const shareTime = time.Minute

// content is containerd on overlayfs, with its content in the content store of ipcs, and ordinary images, of which others are asked before the registry.
type content struct {
	name  string
	peers bool // the publisher has pulled the image before
}

func (c content) Name() string { return c.name }

func (c content) About() string {
	if c.peers {
		return "the same, where another machine has pulled the image before"
	}
	return "overlayfs with containerd's content in the content store of ipcs, which is asked before the registry and knows nobody who has the image"
}

func (content) Missing(context.Context, Programs) string { return "" }

// Publish pushes the image, as it is, and has the publisher pull it.
func (c content) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	ref, err := site.Push(ctx, source.Image, "overlayfs")
	if err != nil || !c.peers {
		return &Image{Name: source.Image, Ref: ref}, err
	}
	h, err := c.Start(ctx, site.Publisher, "first", Options{Registry: site.Registry.Addr})
	if err != nil {
		return nil, err
	}
	if _, err := lab.Output(h.Containerd.Ctr(ctx, "content", "fetch", "--hosts-dir", h.Hosts, ref)); err != nil {
		return nil, err
	}
	if err := shared(ctx, h, ref); err != nil {
		return nil, err
	}
	status, err := h.Daemon.Status(ctx)
	if err != nil {
		return nil, err
	}
	return &Image{Name: source.Image, Ref: ref, Peers: status.Addrs}, nil
}

// shared waits until others get all that a host has pulled.
func shared(ctx context.Context, h *Host, ref string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, shareTime, fmt.Errorf("others do not get %s within %v", ref, shareTime))
	defer cancel()
	list, err := lab.Output(h.Containerd.Ctr(ctx, "content", "ls", "-q"))
	if err != nil {
		return err
	}
	client := h.Machine.HTTPClient()
	defer client.CloseIdleConnections()
	for _, digest := range strings.Fields(list) {
		for status := 0; status != http.StatusOK; {
			req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+h.Daemon.Registry+"/mirror/v2/image/blobs/"+digest, nil)
			if err != nil {
				return err
			}
			resp, err := client.Do(req)
			if err != nil {
				return fmt.Errorf("%w: %w", context.Cause(ctx), err)
			}
			if err := resp.Body.Close(); err != nil {
				return err
			}
			if status = resp.StatusCode; status != http.StatusOK {
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	return nil
}

func (content) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	daemon, err := m.StartDaemon(ctx, lab.DaemonOptions{
		Root: root, Peers: opts.Peers, Pprof: opts.Profile, Registry: true, Registries: []string{opts.Registry},
	})
	if err != nil {
		return nil, err
	}
	h := &Host{
		Machine: m, Snapshotter: "overlayfs", Daemon: daemon, Helpers: []*lab.Process{daemon.Process}, Folders: []string{daemon.Root()},
	}
	if h, err = h.start(ctx, root, lab.ContainerdOptions{Daemon: daemon, Content: true, Mirrored: opts.Registry}); err == nil {
		h.Hosts = h.Containerd.HostsDir()
	}
	return h, err
}
