package lab

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/template"
	"time"

	_ "embed"

	"golang.org/x/sys/unix"
)

//go:embed daemon.toml
var daemonConfig string

// A Daemon is a running ipcs-snapshotter.
type Daemon struct {
	*Process
	Snapshotter string // socket for containerd
	API         string // socket for convert
	CRI         string // socket for kubelets
	Metrics     string // host:port, if DaemonOptions say so
	Registry    string // host:port on the machine's loopback, if DaemonOptions say so
	Gateway     string // host:port on the machine's loopback, if DaemonOptions say so

	machine *Machine
	opts    DaemonOptions
	root    string
	state   string
	config  string
	port    int
	begins  int // of the log, where this process began it
}

// DaemonOptions say what a daemon is given.
type DaemonOptions struct {
	Root    string        // names its folder on the machine's disk; default "ipcs"
	Peers   []string      // multiaddrs with /p2p/ID
	Routers []string      // URLs
	Routing string        // host:port where nodes are told of each other; "" for nowhere
	Kubo    string        // address of the Kubo that is its node; "": it has one of its own, with Peers
	Timeout time.Duration // of reads; default 30 s
	Limit   int64         // bytes of the store; 0 for none
	Pprof   string        // folder that the daemon writes profiles into when it stops; "" for none
	Port    int           // that it listens on; default 4100
	// Fill is fetch.fill; "" is off, so that what is fetched is what was read.
	Fill string
	// Window is profile.window; 0 records nothing.
	Window time.Duration
	// Metrics says that the daemon counts and serves metrics.
	Metrics bool
	// Registry says that the daemon answers as a registry.
	Registry bool
	// Gateway says that the daemon serves a gateway.
	Gateway bool
	// Registries are the host:port of registries, which speak plain HTTP, that the daemon reads seeds from, and
	// Layouts where it finds OCI layouts that have some.
	Registries, Layouts []string
	// DockerConfig is a file with credentials for registries; "" for none.
	DockerConfig string
	// Share is content.share; "" is public.
	Share string
	// Image and Data are mounts.image and mounts.data; "" is auto.
	Image, Data string
}

// Status is what the tests and the demo need of `ipcs-snapshotter status --json`.
type Status struct {
	ID    string   `json:"id"`
	PID   int      `json:"pid"`
	Addrs []string `json:"addrs"`
	Kubo  *struct {
		Connected []string `json:"connected"`
		Error     string   `json:"error"`
	} `json:"kubo"`
	Peers []struct {
		ID        string `json:"id"`
		Connected bool   `json:"connected"`
		Found     string `json:"found"`
		BytesIn   int64  `json:"bytes_in"`
	} `json:"peers"`
	Store struct {
		Objects int64 `json:"objects"`
		Bytes   int64 `json:"bytes"`
		Used    int64 `json:"used"`
		Evicted int64 `json:"evicted_objects"`
		Held    int64 `json:"held_bytes"`
	} `json:"store"`
	Fetch struct {
		Files    int64 `json:"files"`
		Bytes    int64 `json:"bytes"`
		InFlight int64 `json:"in_flight"`
	} `json:"fetch"`
	Lazy struct {
		Lookups int64 `json:"lookups"`
		Reads   int64 `json:"reads"`

		Errors        int64 `json:"errors"`
		RelayRestarts int64 `json:"relay_restarts"`
		RelayPID      int   `json:"relay_pid"`
		RelayOwn      int64 `json:"relay_own_bytes"`
		RelayFiles    int64 `json:"relay_file_bytes"`
	} `json:"lazy"`
	Chains []struct {
		Layers     int   `json:"layers"`
		Files      int   `json:"files"`
		Bytes      int64 `json:"bytes"`
		LocalFiles int   `json:"local_files"`
		LocalBytes int64 `json:"local_bytes"`
		Peers      []struct {
			ID    string `json:"id"`
			Bytes int64  `json:"bytes"`
		} `json:"peers"`
		Mode string `json:"mode"`
		Data string `json:"data"`
		Fill string `json:"fill"`
	} `json:"chains"`
}

// StartDaemon starts ipcs-snapshotter on the machine and waits until it is ready.
func (m *Machine) StartDaemon(ctx context.Context, opts DaemonOptions) (*Daemon, error) {
	if opts.Root == "" {
		opts.Root = "ipcs"
	}
	if opts.Timeout == 0 {
		opts.Timeout = 30 * time.Second
	}
	if opts.Port == 0 {
		opts.Port = 4100
	}
	if opts.Fill == "" {
		opts.Fill = "off"
	}
	state := filepath.Join(m.run, opts.Root)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	port, err := m.Port(opts.Port)
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		machine: m, opts: opts, state: state,
		root:        filepath.Join(m.dir, opts.Root),
		config:      filepath.Join(m.dir, opts.Root+".toml"),
		Snapshotter: filepath.Join(state, "snapshotter.sock"),
		API:         filepath.Join(state, "api.sock"),
		CRI:         filepath.Join(state, "cri.sock"),
	}
	if opts.Metrics {
		port, err := m.Port(9464)
		if err != nil {
			return nil, err
		}
		d.Metrics = net.JoinHostPort(m.Addr(), strconv.Itoa(port))
	}
	if opts.Registry {
		port, err := m.Port(5050)
		if err != nil {
			return nil, err
		}
		d.Registry = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	if opts.Gateway {
		port, err := m.Port(8080)
		if err != nil {
			return nil, err
		}
		d.Gateway = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	if err := d.configure(port); err != nil {
		return nil, err
	}
	return d, d.Start(ctx)
}

// SetMounts changes how a daemon mounts that is started again.
func (d *Daemon) SetMounts(image, data string) error {
	d.opts.Image, d.opts.Data = image, data
	return d.configure(d.port)
}

// configure writes the daemon's configuration file.
func (d *Daemon) configure(port int) error {
	d.port = port
	hosts, err := d.hostsDir()
	if err != nil {
		return err
	}
	t, err := template.New("daemon.toml").Funcs(template.FuncMap{"quote": strconv.Quote}).Parse(daemonConfig)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.config, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.Execute(f, map[string]any{
		"Root": d.root, "State": d.state, "Peers": d.opts.Peers, "Timeout": d.opts.Timeout.String(),
		"Limit": d.opts.Limit, "Metrics": d.Metrics, "Registry": d.Registry, "Gateway": d.Gateway, "Image": d.opts.Image, "Data": d.opts.Data,
		"Kubo": d.opts.Kubo, "Routers": d.opts.Routers, "Routing": d.opts.Routing,
		"Registries": len(d.opts.Registries) > 0, "HostsDir": hosts, "Layouts": d.opts.Layouts, "DockerConfig": d.opts.DockerConfig,
		"Share": cmp.Or(d.opts.Share, "public"), "Fill": d.opts.Fill, "Window": d.opts.Window.String(),
		"Listen": fmt.Sprintf("/ip4/%s/tcp/%d", d.machine.Addr(), port), "Containerd": d.Containerd(),
	})
}

// hostsDir writes containerd's configuration of the registries, and returns its folder.
func (d *Daemon) hostsDir() (string, error) {
	dir := filepath.Join(d.machine.dir, d.opts.Root+"-hosts")
	for _, host := range d.opts.Registries {
		at := filepath.Join(dir, strings.ReplaceAll(host, ":", "_")+"_") // as containerd names it for a host with a port
		if err := os.MkdirAll(at, 0o700); err != nil {
			return "", err
		}
		text := fmt.Appendf(nil, "server = %q\n", "http://"+host)
		if err := os.WriteFile(filepath.Join(at, "hosts.toml"), text, 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Start starts a daemon that was stopped or killed, on the same root.
func (d *Daemon) Start(ctx context.Context) error {
	args := []string{"--config", d.config}
	if d.opts.Pprof != "" {
		args = append(args, "--pprof", d.opts.Pprof)
	}
	cmd := d.machine.Command(context.WithoutCancel(ctx), "ipcs-snapshotter", args...)
	log := filepath.Join(d.machine.dir, d.opts.Root+".log")
	d.begins = 0
	if info, err := os.Stat(log); err == nil {
		d.begins = int(info.Size())
	}
	p, err := d.machine.lab.start("ipcs-snapshotter on "+d.machine.Name, log, cmd)
	if err != nil {
		return err
	}
	d.Process = p
	return p.ready(ctx, func(ctx context.Context) error {
		// To ask takes a program, and its processor is better used by the daemon that starts.
		if _, err := os.Stat(d.API); err != nil {
			return err
		}
		_, err := d.Status(ctx)
		return err
	})
}

// Containerd is where the daemon looks for containerd's socket: a link, which leads to the
// containerd that was given this daemon last.
func (d *Daemon) Containerd() string { return filepath.Join(d.state, "containerd.sock") }

// link makes the daemon work with the containerd that listens on socket.
func (d *Daemon) link(socket string) error {
	if err := os.Remove(d.Containerd()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(socket, d.Containerd())
}

// Abort kills the daemon and ends its FUSE mount, which outlives it otherwise: what reads
// from there fails.
func (d *Daemon) Abort() error {
	d.Kill()
	return unix.Unmount(filepath.Join(d.state, "mounts", "lazy"), unix.MNT_FORCE|unix.MNT_DETACH)
}

// Log returns the path of the daemon's log.
func (d *Daemon) Log() string { return d.log }

// Root returns the folder that the daemon keeps its data in.
func (d *Daemon) Root() string { return d.root }

// Command is a subcommand of ipcs-snapshotter against this daemon.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	return d.machine.Command(ctx, "ipcs-snapshotter", append([]string{"--config", d.config}, args...)...)
}

// IPFS is a command of stock ipfs(1) on the machine, which asks this daemon.
func (d *Daemon) IPFS(ctx context.Context, args ...string) *exec.Cmd {
	cmd := d.machine.Command(ctx, "ipfs", append([]string{"--api", "/unix" + d.API}, args...)...)
	cmd.Env = append(cmd.Env, "IPFS_PATH="+filepath.Join(d.machine.dir, "no-ipfs-repository"), "IPFS_TELEMETRY=off")
	return cmd
}

// filledMessage is what the daemon logs when all files of an image are here.
const filledMessage = "all files of the image are here"

// Filled waits until all files of an image are here, by what it has logged since it was started: a status looks at every file,
// which would be in the way of what is waited for.
func (d *Daemon) Filled(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		log, err := os.ReadFile(d.log)
		if err != nil || bytes.Contains(log[min(d.begins, len(log)):], []byte(filledMessage)) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until all files of an image are here: %w", context.Cause(ctx))
		}
	}
}

// Fetch has the daemon fetch all files of an image of its containerd.
func (d *Daemon) Fetch(ctx context.Context, ref string) error {
	_, err := Output(d.Command(ctx, "fetch", "--json", ref))
	return err
}

// Status asks the daemon how it is.
func (d *Daemon) Status(ctx context.Context) (*Status, error) {
	out, err := Output(d.Command(ctx, "status", "--json"))
	if err != nil {
		return nil, err
	}
	var s Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		return nil, fmt.Errorf("status of %s: %w", d.name, err)
	}
	return &s, nil
}
