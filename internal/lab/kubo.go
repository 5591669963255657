package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A Kubo is a daemon of Kubo, with a repository of its own.
type Kubo struct {
	*Process
	API     string // address of its RPC, for convert and node.kubo
	Repo    string // folder of its repository
	Peer    string // multiaddr of its node
	Gateway string // host:port of its gateway

	machine *Machine
	name    string
	socket  string
	env     []string
}

// KuboOptions say what a Kubo is given.
type KuboOptions struct {
	Name    string   // names its folder and log; default "kubo"
	Repo    string   // folder of its repository, which is made if it is not there; default: on the machine's disk
	Profile string   // of "ipfs init", such as pebbleds; default: none
	Port    int      // that it listens on; default 4001
	Peers   []string // multiaddrs with /p2p/ID of nodes that it stays connected to
}

// StartKubo starts Kubo on the machine. It fetches from peers that are connected to it, and
// looks for none.
func (m *Machine) StartKubo(ctx context.Context, opts KuboOptions) (*Kubo, error) {
	if opts.Name == "" {
		opts.Name = "kubo"
	}
	if opts.Repo == "" {
		opts.Repo = filepath.Join(m.dir, opts.Name)
	}
	if opts.Port == 0 {
		opts.Port = 4001
	}
	socket := filepath.Join(m.run, opts.Name+".sock")
	k := &Kubo{
		API: "/unix" + socket, Repo: opts.Repo, machine: m, name: opts.Name, socket: socket,
		env: []string{"IPFS_PATH=" + opts.Repo, "IPFS_TELEMETRY=off"},
	}
	config := filepath.Join(opts.Repo, "config")
	if _, err := os.Stat(config); errors.Is(err, fs.ErrNotExist) {
		args := []string{"init", "--empty-repo"}
		if opts.Profile != "" {
			args = append(args, "--profile", opts.Profile)
		}
		if _, err := Output(k.Command(ctx, args...)); err != nil {
			return nil, fmt.Errorf("make a repository of Kubo: %w", err)
		}
	}
	if err := k.configure(config, opts); err != nil {
		return nil, err
	}
	return k, k.Start(ctx)
}

// configure changes the configuration that Kubo made.
func (k *Kubo) configure(file string, opts KuboOptions) error {
	port, err := k.machine.Port(opts.Port)
	if err != nil {
		return err
	}
	gateway, err := k.machine.Port(opts.Port + 4079)
	if err != nil {
		return err
	}
	k.Gateway = fmt.Sprintf("%s:%d", k.machine.Addr(), gateway)
	swarm := fmt.Sprintf("/ip4/%s/tcp/%d", k.machine.Addr(), port)
	id, err := configureKubo(file, map[string]any{
		"Addresses": map[string]any{"Swarm": []string{swarm}, "API": k.API, "Gateway": fmt.Sprintf("/ip4/%s/tcp/%d", k.machine.Addr(), gateway)},
		"Peering":   map[string]any{"Peers": peering(opts.Peers)},
	})
	k.Peer = swarm + "/p2p/" + id
	return err
}

// peering lists peers as Kubo's configuration does.
func peering(addrs []string) []map[string]any {
	list := []map[string]any{}
	for _, a := range addrs {
		addr, id, _ := strings.Cut(a, "/p2p/")
		list = append(list, map[string]any{"ID": id, "Addrs": []string{addr}})
	}
	return list
}

// Start starts a Kubo that was stopped or killed, on the same repository.
func (k *Kubo) Start(ctx context.Context) (err error) {
	if err := os.Remove(k.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // of one that was killed
	}
	k.Process, err = k.machine.Start(ctx, k.name, k.Command(context.WithoutCancel(ctx), "daemon"),
		func(ctx context.Context) error { return answers(ctx, k.socket) })
	return err
}

// Connected waits until Kubo has a peer.
func (k *Kubo) Connected(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		peers, err := Output(k.Command(ctx, "swarm", "peers"))
		if err != nil || peers != "" {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait until Kubo has a peer: %w", context.Cause(ctx))
		}
	}
}

// Command is a command of ipfs(1) on the machine, against this daemon or its repository.
func (k *Kubo) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := k.machine.Command(ctx, "ipfs", args...)
	cmd.Env = append(cmd.Env, k.env...)
	return cmd
}

// configureKubo changes a configuration that Kubo made: it looks for nobody, and has these
// settings. It returns the ID of the peer.
func configureKubo(file string, settings map[string]any) (id string, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	config := map[string]any{}
	if err := json.Unmarshal(text, &config); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	identity, _ := config["Identity"].(map[string]any)
	id, _ = identity["PeerID"].(string)
	if id == "" {
		return "", fmt.Errorf("%s: no Identity.PeerID", file)
	}
	type object = map[string]any
	off := object{"Enabled": false}
	changes := object{
		"Bootstrap": []string{},
		"Discovery": object{"MDNS": off},
		"Routing":   object{"Type": "none"},
		"AutoConf":  off, "AutoTLS": off, "Provide": off, "HTTPRetrieval": off,
		"AutoNAT": object{"ServiceMode": "disabled"},
		"DNS":     object{},
		"Ipns":    object{},
		"Plugins": object{"Plugins": object{"telemetry": object{"Disabled": true}}},
		"Version": object{"SwarmCheckEnabled": false},
		"Swarm": object{
			"DisableNatPortMap": true, "EnableHolePunching": false,
			"RelayClient": off, "RelayService": off,
			"Transports": object{"Network": object{
				"TCP": true, "QUIC": false, "Relay": false, "Websocket": false, "WebTransport": false, "WebRTCDirect": false,
			}},
		},
	}
	maps.Copy(config, changes)
	maps.Copy(config, settings)
	if text, err = json.MarshalIndent(config, "", "  "); err != nil {
		return "", err
	}
	return id, os.WriteFile(file, text, 0o600)
}

// answers asks the daemon whose RPC is at a socket for its version.
func answers(ctx context.Context, socket string) error {
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://kubo/api/v0/version", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.Join(errors.New(resp.Status), resp.Body.Close())
	}
	return resp.Body.Close()
}
