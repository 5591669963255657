package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"text/template"

	"github.com/hinshun/ipcs/packaging"
)

//go:embed rootless.sh
var rootlessHost string

//go:embed rootless.toml
var rootlessConfig string

// userID is that of the user without root rights. The next ones are of nobody.
const userID = 23456

// Where the user's things are.
const (
	userHome    = "/home/user"
	userRuntime = "/home/run"
	userBin     = "/home/bin"
)

// A Rootless is containerd and ipcs-snapshotter of a user of a machine who has no root rights,
// as the program ipcs-rootless runs them.
type Rootless struct {
	machine *Machine
	host    *Process // holds what the user sees of the machine
	daemons *Process
	home    string
}

// RootlessOptions say what it is given.
type RootlessOptions struct {
	Peers []string // multiaddrs with /p2p/ID
	Data  string   // mounts.data; "" is auto
}

// Rootless makes the user of the machine. Nothing runs before Start.
func (m *Machine) Rootless(ctx context.Context) (*Rootless, error) {
	r := &Rootless{machine: m, home: filepath.Join(m.dir, "user")}
	if err := errors.Join(os.MkdirAll(r.home, 0o755), os.Chown(r.home, userID, userID)); err != nil {
		return nil, err
	}
	program := filepath.Join(m.dir, "ipcs-rootless")
	if err := os.WriteFile(program, []byte(packaging.Rootless()), 0o755); err != nil {
		return nil, err
	}
	ready := filepath.Join(m.dir, "user-is-ready")
	args := []string{"--mount", "--propagation", "private", "sh", "-c", rootlessHost, "sh", strconv.Itoa(userID), r.home, ready, program}
	for _, name := range []string{"ipcs-snapshotter", "convert", "containerd", "containerd-shim-runc-v2", "ctr", "runc"} {
		file, err := m.program(name)
		if err != nil {
			return nil, err
		}
		args = append(args, file)
	}
	var err error
	r.host, err = m.Start(ctx, "user", m.Command(context.WithoutCancel(ctx), "unshare", args...), func(context.Context) error {
		_, err := os.Stat(ready)
		return err
	})
	return r, err
}

// Start starts the daemons and waits until they answer.
func (r *Rootless) Start(ctx context.Context, opts RootlessOptions) error {
	if err := r.configure(opts); err != nil {
		return err
	}
	var err error
	r.daemons, err = r.machine.Start(ctx, "rootless", r.command(context.WithoutCancel(ctx)), func(ctx context.Context) error {
		_, err := Output(r.Command(ctx, "ctr", "version"))
		return err
	})
	return err
}

// Stop ends the daemons, and with them all containers.
func (r *Rootless) Stop() error { return r.daemons.Stop() }

// Tail returns the end of what the daemons logged.
func (r *Rootless) Tail() string { return r.daemons.Tail() }

// Command is a command beside the daemons.
func (r *Rootless) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return r.command(ctx, append([]string{name}, args...)...)
}

// command is ipcs-rootless as the user runs it.
func (r *Rootless) command(ctx context.Context, args ...string) *exec.Cmd {
	id := strconv.Itoa(userID)
	return r.machine.Command(ctx, "nsenter", append([]string{
		fmt.Sprintf("--mount=/proc/%d/ns/mnt", r.host.pid()), "--",
		"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--",
		"env", "-i", "-C", userHome, "HOME=" + userHome, "XDG_RUNTIME_DIR=" + userRuntime, "PATH=" + userBin + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"ipcs-rootless",
	}, args...)...)
}

// configure writes the user's configuration files.
func (r *Rootless) configure(opts RootlessOptions) error {
	dir := filepath.Join(r.home, ".config", "ipcs-rootless")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	t, err := template.New("rootless.toml").Funcs(template.FuncMap{"quote": strconv.Quote}).Parse(rootlessConfig)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "config.toml"))
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, opts), f.Close(),
		// As it is installed: its paths are right in there.
		os.WriteFile(filepath.Join(dir, "containerd.toml"), []byte(packaging.Installed()), 0o644))
}
