package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/hinshun/ipcs/internal/lab"
)

// stargz is the stargz snapshotter: layers stay in the registry, as tars of which single
// files can be decompressed, and come in ranges when they are read, and in the
// background.
type stargz struct {
	name     string
	optimize bool // by the command that will run
}

func (s stargz) Name() string { return s.name }

func (s stargz) About() string {
	if s.optimize {
		return "the same, its layers in the order in which the measured command itself reads files: its best case"
	}
	return "the stargz snapshotter in its own configuration, with eStargz layers (gzip level 6)"
}

func (stargz) Missing(_ context.Context, programs Programs) string {
	for _, name := range []string{"containerd-stargz-grpc", "ctr-remote"} {
		if _, err := programs(name); err != nil {
			return "no " + name + " on PATH: it is part of the stargz snapshotter"
		}
	}
	return ""
}

// Publish converts the image in a containerd on the publisher, from the registry to the
// registry.
func (s stargz) Publish(ctx context.Context, site *Site, source Source) (img *Image, err error) {
	from, err := site.Push(ctx, source.Image, "overlayfs")
	if err != nil {
		return nil, err
	}
	h, err := overlayfs{}.Start(ctx, site.Publisher, s.name, Options{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, h.Stop(ctx)) }()
	to := from + "-" + s.name
	convert := []string{"image", "convert", "--oci", "--estargz", "--estargz-compression-level", "6", from, to}
	if s.optimize && source.Command != "" {
		args, err := json.Marshal([]string{"sh", "-c", source.Command})
		if err != nil {
			return nil, err
		}
		// It watches the command until it ends, for at most the period.
		convert = []string{
			"image", "optimize", "--oci", "--estargz-compression-level", "6", "--period", "120",
			"--entrypoint", "[]", "--args", string(args), from, to,
		}
	}
	if _, err := lab.Output(h.Pull(ctx, from)); err != nil {
		return nil, err
	}
	if _, err := lab.Output(h.Containerd.Command(ctx, "ctr-remote", convert...)); err != nil {
		return nil, err
	}
	_, err = lab.Output(h.Containerd.Ctr(ctx, "image", "push", "--plain-http", to))
	return &Image{Name: source.Image, Ref: to}, err
}

// stargzConfig is what the snapshotter is told: which registry speaks plain HTTP.
const stargzConfig = `[[resolver.host.%[1]q.mirrors]]
  host = %[1]q
  insecure = true
`

// stargzImport is what containerd is told, as the snapshotter's documentation has it for
// the transfer service.
const stargzImport = `version = 4

[proxy_plugins.stargz]
  type = "snapshot"
  address = %[1]q
  [proxy_plugins.stargz.exports]
    root = %[2]q
    enable_remote_snapshot_annotations = "true"

[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/%[3]s"
  snapshotter = "stargz"
  differ = "walking"
`

func (stargz) Start(ctx context.Context, m *lab.Machine, root string, opts Options) (*Host, error) {
	if opts.Registry == "" {
		return nil, errors.New("stargz: Options.Registry does not say which registry speaks plain HTTP")
	}
	state, dir := filepath.Join(m.State(), root), filepath.Join(m.Dir(), root)
	for _, d := range []string{state, dir} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	config, socket := filepath.Join(state, "config.toml"), filepath.Join(state, "stargz.sock")
	if err := os.WriteFile(config, fmt.Appendf(nil, stargzConfig, opts.Registry), 0o600); err != nil {
		return nil, err
	}
	cmd := m.Command(context.WithoutCancel(ctx), "containerd-stargz-grpc",
		"--log-level", "warn", "--address", socket, "--config", config, "--root", dir)
	p, err := m.Start(ctx, root, cmd, func(context.Context) error {
		_, err := os.Stat(socket)
		return err
	})
	if err != nil {
		return nil, err
	}
	h := &Host{
		Machine: m, Snapshotter: "stargz", Helpers: []*lab.Process{p}, Lazy: true,
		Folders: []string{dir, state},
	}
	return h.start(ctx, root, lab.ContainerdOptions{Import: fmt.Sprintf(stargzImport, socket, dir, runtime.GOARCH)})
}
