package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"

	"github.com/hinshun/ipcs/packaging"
)

//go:embed containerd.toml
var containerdConfig string

// Namespace is the containerd namespace that the lab works in.
const Namespace = "default"

// A Containerd is a stock containerd with a root and sockets of its own.
type Containerd struct {
	*Process
	Address string // its socket
	NRI     string // its socket for plugins, with CRI.Network
	Client  *client.Client

	machine *Machine
}

// ContainerdOptions say what a containerd is given.
type ContainerdOptions struct {
	Root    string  // names its folder on the machine's disk; default "containerd"
	Daemon  *Daemon // the snapshotter "ipcs"; nil for none
	CRI     *CRI    // what Kubernetes speaks to; nil for none
	Erofs   bool    // its own erofs snapshotter, which needs mkfs.erofs of 1.8.2 or newer
	Unpack  bool    // with Daemon: ipcs images are unpacked on overlayfs and native, and for CRI
	Content bool    // with Daemon: its content is in the daemon's content store
	// Mirrored is host:port of a registry, in plain HTTP, of whose images the Daemon, which answers as a registry, is asked first (HostsDir).
	Mirrored string
	Import   string // text of a further file of configuration, as other snapshotters need it
}

// CRI says what containerd's CRI plugin is given.
type CRI struct {
	Registry string // host:port of a registry that is spoken to in plain HTTP; "" for none
	IPFS     string // host:port of a daemon's registry, which has the images ipfs.localhost/CID; "" for none
	Sandbox  string // reference of the image that holds a pod together
	Mirror   bool   // that registry has the images of all others, too
	// Pods have networks of their own, made with the plugins of Debian's package
	// containernetworking-plugins, and containerd takes plugins of its own (NRI). Else pods
	// are on the machine's network.
	Network bool
}

// plugins is where Debian has CNI's.
const plugins = "/usr/lib/cni"

//go:embed cni.json
var podNetwork string

// criOnOverlayfs has Kubernetes' images unpacked, too.
const criOnOverlayfs = `
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
`

// StartContainerd starts containerd on the machine.
func (m *Machine) StartContainerd(ctx context.Context, opts ContainerdOptions) (*Containerd, error) {
	if opts.Root == "" {
		opts.Root = "containerd"
	}
	state := filepath.Join(m.run, opts.Root)
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	config := filepath.Join(state, "config.toml")
	values := map[string]string{
		"Root":   filepath.Join(m.dir, opts.Root),
		"State":  state,
		"Socket": filepath.Join(state, "c.sock"),
		"Shims":  filepath.Join(m.lab.run, "s"), // at most 42 bytes
	}
	if err := opts.files(state, values); err != nil {
		return nil, err
	}
	if err := writeTemplate(config, containerdConfig, values); err != nil {
		return nil, err
	}
	cmd := m.Command(context.WithoutCancel(ctx), "containerd", "--config", config)
	p, err := m.lab.start("containerd on "+m.Name, filepath.Join(m.dir, opts.Root+".log"), cmd)
	if err != nil {
		return nil, err
	}
	c := &Containerd{Process: p, Address: values["Socket"], NRI: values["NRI"], machine: m}
	return c, p.ready(ctx, c.connect)
}

// files writes what the configuration refers to, and adds the names to values.
func (o ContainerdOptions) files(state string, values map[string]string) error {
	if o.Daemon != nil {
		values["Import"] = filepath.Join(state, "ipcs.toml")
		text := packaging.Containerd(o.Daemon.Snapshotter, o.Daemon.root)
		if err := os.WriteFile(values["Import"], []byte(text), 0o600); err != nil {
			return err
		}
		if err := o.Daemon.link(values["Socket"]); err != nil {
			return err
		}
	}
	if o.Unpack {
		values["Unpack"] = filepath.Join(state, "unpack.toml")
		if err := os.WriteFile(values["Unpack"], []byte(packaging.Unpack()+criOnOverlayfs), 0o600); err != nil {
			return err
		}
	}
	if o.Content {
		values["Content"] = filepath.Join(state, "content.toml")
		text := packaging.Content(filepath.Join(filepath.Dir(o.Daemon.Snapshotter), "content.sock"))
		if err := os.WriteFile(values["Content"], []byte(text), 0o600); err != nil {
			return err
		}
	}
	if o.Import != "" {
		if o.Daemon != nil || o.Erofs {
			return errors.New("containerd: Import takes the place of Daemon and Erofs: each lists what pulls unpack for")
		}
		values["Import"] = filepath.Join(state, "import.toml")
		if err := os.WriteFile(values["Import"], []byte(o.Import), 0o600); err != nil {
			return err
		}
	}
	if o.Erofs {
		values["Erofs"] = "linux/" + runtime.GOARCH
	}
	if o.Mirrored != "" {
		if err := writeHosts(filepath.Join(state, hostsName), map[string]string{
			o.Mirrored: fmt.Sprintf("server = %q\n", "http://"+o.Mirrored) + packaging.Mirror(o.Daemon.Registry),
			"_default": packaging.Mirror(o.Daemon.Registry),
		}); err != nil {
			return err
		}
	}
	if o.CRI == nil {
		return nil
	}
	return o.CRI.files(state, values)
}

// files writes what the configuration of the CRI plugin refers to.
func (c CRI) files(state string, values map[string]string) error {
	values["Sandbox"] = c.Sandbox
	values["CNI"] = filepath.Join(state, "cni")
	values["CNIPlugins"] = values["CNI"]
	if c.Network {
		values["CNIPlugins"] = plugins
		values["NRI"] = filepath.Join(state, "nri.sock")
		if err := os.MkdirAll(values["CNI"], 0o700); err != nil {
			return err
		}
		if err := writeTemplate(filepath.Join(values["CNI"], "pods.conflist"), podNetwork, values); err != nil {
			return err
		}
	}
	values["Certs"] = filepath.Join(state, hostsName)
	hosts := make(map[string]string)
	if c.Registry != "" {
		hosts[c.Registry] = fmt.Sprintf("server = 'http://%[1]s'\n[host.'http://%[1]s']\n", c.Registry)
	}
	if c.Mirror {
		hosts["_default"] = hosts[c.Registry]
	}
	if c.IPFS != "" {
		hosts[packaging.Host] = packaging.Hosts(c.IPFS)
	}
	return writeHosts(values["Certs"], hosts)
}

// hostsName is the folder of what containerd is told of registries.
const hostsName = "certs.d"

// writeHosts writes what containerd is told of registries, by their names.
func writeHosts(folder string, hosts map[string]string) error {
	for name, text := range hosts {
		dir := filepath.Join(folder, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// connect makes the client, once containerd answers.
func (c *Containerd) connect(ctx context.Context) error {
	if _, err := os.Stat(c.Address); err != nil {
		return err
	}
	cl, err := client.New(c.Address, client.WithDefaultNamespace(Namespace))
	if err != nil {
		return err
	}
	if ok, err := cl.IsServing(ctx); err != nil || !ok {
		return errors.Join(errors.New("does not serve yet"), err, cl.Close())
	}
	c.Client = cl
	return nil
}

// HostsDir is the folder in which the CRI plugin, and ctr with --hosts-dir, find registries.
func (c *Containerd) HostsDir() string { return filepath.Join(filepath.Dir(c.Address), hostsName) }

// Context returns a context with containerd's namespace, for calls of the Client.
func (c *Containerd) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Ctr is a command of ctr(1) on the machine, against this containerd.
func (c *Containerd) Ctr(ctx context.Context, args ...string) *exec.Cmd {
	return c.Command(ctx, "ctr", args...)
}

// Shell is a command line for sh(1) on the machine, in which ctr is that of Ctr.
func (c *Containerd) Shell(ctx context.Context, line string) *exec.Cmd {
	return c.Command(ctx, "sh", "-c", line)
}

// Command is a command on the machine that finds this containerd as ctr does.
func (c *Containerd) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := c.machine.Command(ctx, name, args...)
	cmd.Env = append(cmd.Env, "CONTAINERD_ADDRESS="+c.Address, "CONTAINERD_NAMESPACE="+Namespace)
	return cmd
}

// Stop ends all containers, and then containerd. It goes on when ctx has ended.
func (c *Containerd) Stop(ctx context.Context) error {
	if !c.running() {
		return nil
	}
	ctx, cancel := cleaning(ctx)
	defer cancel()
	var errs []error
	all, err := c.Client.NamespaceService().List(ctx)
	errs = append(errs, err)
	for _, namespace := range all {
		errs = append(errs, c.stopContainers(namespaces.WithNamespace(ctx, namespace)))
	}
	return errors.Join(append(errs, c.Client.Close(), c.Process.Stop())...)
}

func (c *Containerd) stopContainers(ctx context.Context) error {
	containers, err := c.Client.Containers(ctx)
	if err != nil {
		return err
	}
	for _, cont := range containers {
		task, err := cont.Task(ctx, nil)
		if err != nil {
			continue // it has none
		}
		if _, err := task.Delete(ctx, client.WithProcessKill); err != nil {
			return fmt.Errorf("stop container %s: %w", cont.ID(), err)
		}
	}
	return nil
}

// Output runs a command and returns what it writes to standard output; the error
// holds the command and what it writes to standard error.
func Output(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

func writeTemplate(path, text string, values map[string]string) error {
	t, err := template.New(filepath.Base(path)).Parse(text)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(t.Execute(f, values), f.Close())
}
