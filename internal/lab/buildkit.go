package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A BuildKit is a running buildkitd, which builds with a containerd.
type BuildKit struct {
	*Process

	address string
	machine *Machine
}

// StartBuildKit starts buildkitd on the containerd's machine. It keeps what it builds on one
// of containerd's snapshotters, builds on the machine's network, and speaks to a registry in
// plain HTTP.
func (c *Containerd) StartBuildKit(ctx context.Context, snapshotter, registry string) (*BuildKit, error) {
	m := c.machine
	b := &BuildKit{machine: m, address: "unix://" + filepath.Join(m.run, "buildkit.sock")}
	config := filepath.Join(m.dir, "buildkitd.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "[registry.%q]\n  http = true\n", registry), 0o600); err != nil {
		return nil, err
	}
	var err error
	b.Process, err = m.Start(ctx, "buildkitd", m.Command(context.WithoutCancel(ctx), "buildkitd",
		"--config", config, "--root", filepath.Join(m.dir, "buildkit"), "--addr", b.address, "--oci-worker=false",
		"--containerd-worker=true", "--containerd-worker-addr", c.Address, "--containerd-worker-namespace", Namespace,
		"--containerd-worker-snapshotter", snapshotter, "--containerd-worker-net", "host"),
		func(ctx context.Context) error { return b.Command(ctx, "debug", "workers").Run() })
	return b, err
}

// Command is a command of buildctl(1) against this daemon.
func (b *BuildKit) Command(ctx context.Context, args ...string) *exec.Cmd {
	return b.machine.Command(ctx, "buildctl", append([]string{"--addr", b.address}, args...)...)
}
