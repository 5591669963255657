package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
)

// A Kubo is a running daemon of Kubo, with a repository of its own.
type Kubo struct {
	*Process
	API     string // address of its RPC, for convert
	Peer    string // multiaddr of its node
	Gateway string // host:port of its gateway

	machine *Machine
	env     []string
}

// StartKubo starts Kubo on the machine. It fetches from peers that are connected to it, and
// looks for none.
func (m *Machine) StartKubo(ctx context.Context) (*Kubo, error) {
	repo, socket := filepath.Join(m.dir, "kubo"), filepath.Join(m.run, "kubo.sock")
	k := &Kubo{API: "/unix" + socket, machine: m, env: []string{"IPFS_PATH=" + repo, "IPFS_TELEMETRY=off"}}
	if _, err := Output(k.Command(ctx, "init", "--empty-repo")); err != nil {
		return nil, fmt.Errorf("make a repository of Kubo: %w", err)
	}
	port, err := m.Port(4001)
	if err != nil {
		return nil, err
	}
	gateway, err := m.Port(8080)
	if err != nil {
		return nil, err
	}
	k.Gateway = fmt.Sprintf("%s:%d", m.Addr(), gateway)
	swarm := fmt.Sprintf("/ip4/%s/tcp/%d", m.Addr(), port)
	id, err := configureKubo(filepath.Join(repo, "config"), swarm, k.API, fmt.Sprintf("/ip4/%s/tcp/%d", m.Addr(), gateway))
	if err != nil {
		return nil, err
	}
	k.Peer = swarm + "/p2p/" + id
	k.Process, err = m.Start(ctx, "kubo", k.Command(context.WithoutCancel(ctx), "daemon"),
		func(ctx context.Context) error { return answers(ctx, socket) })
	return k, err
}

// Command is a command of ipfs(1) on the machine, against this daemon or its repository.
func (k *Kubo) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := k.machine.Command(ctx, "ipfs", args...)
	cmd.Env = append(cmd.Env, k.env...)
	return cmd
}

// configureKubo changes a configuration that Kubo made: it listens at swarm, api and
// gateway alone, and looks for nobody. It returns the ID of the peer.
func configureKubo(file, swarm, api, gateway string) (id string, err error) {
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
		"Addresses": object{"Swarm": []string{swarm}, "API": api, "Gateway": gateway},
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
