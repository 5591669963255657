package system

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/hinshun/ipcs/internal/lab"
)

// kubo is ipcs with a Kubo daemon as the publisher's node. Consumers are as ever, and
// fetch from Kubo over bitswap.
type kubo struct{ ipcs }

func (kubo) Name() string { return "ipcs-kubo" }

func (kubo) About() string {
	return "this project with Kubo as the publisher's node, in its own configuration but for all that looks for other nodes: " +
		"the consumer's embedded node fetches from it over bitswap"
}

func (kubo) Missing(_ context.Context, programs Programs) string {
	if _, err := programs("ipfs"); err != nil {
		return "no ipfs (Kubo) among the lab's programs or on PATH"
	}
	return ""
}

// Publish converts the image onto Kubo.
func (k kubo) Publish(ctx context.Context, site *Site, source Source) (*Image, error) {
	node, err := site.publisherKubo(ctx)
	if err != nil {
		return nil, err
	}
	ref, err := convert(ctx, site, source.Image, k.Name(), node.api)
	if err != nil {
		return nil, err
	}
	return &Image{Name: source.Image, Ref: ref, Peers: []string{node.peer}}, nil
}

// A kuboNode is a running daemon of Kubo, which the lab stops.
type kuboNode struct {
	api  string // address of its RPC, for convert
	peer string // multiaddr of its node
}

// publisherKubo returns the publisher's Kubo, which it starts when it is first needed.
func (s *Site) publisherKubo(ctx context.Context) (*kuboNode, error) {
	if s.kubo != nil {
		return s.kubo, nil
	}
	k, err := startKubo(ctx, s.Publisher)
	if err != nil {
		return nil, fmt.Errorf("start Kubo on %s: %w", s.Publisher.Name, err)
	}
	s.kubo = k
	return k, nil
}

// startKubo starts a daemon of Kubo on the machine with a repository of its own.
func startKubo(ctx context.Context, m *lab.Machine) (*kuboNode, error) {
	repo, socket := filepath.Join(m.Dir(), "kubo"), filepath.Join(m.State(), "kubo.sock")
	env := []string{"IPFS_PATH=" + repo, "IPFS_TELEMETRY=off"}
	setup := m.Command(ctx, "ipfs", "init", "--empty-repo")
	setup.Env = append(setup.Env, env...)
	if _, err := lab.Output(setup); err != nil {
		return nil, err
	}
	port, err := m.Port(4001)
	if err != nil {
		return nil, err
	}
	swarm := fmt.Sprintf("/ip4/%s/tcp/%d", m.Addr(), port)
	id, err := configureKubo(filepath.Join(repo, "config"), swarm, "/unix"+socket)
	if err != nil {
		return nil, err
	}
	cmd := m.Command(context.WithoutCancel(ctx), "ipfs", "daemon")
	cmd.Env = append(cmd.Env, env...)
	if _, err := m.Start(ctx, "kubo", cmd, func(ctx context.Context) error { return answers(ctx, socket) }); err != nil {
		return nil, err
	}
	return &kuboNode{api: "/unix" + socket, peer: swarm + "/p2p/" + id}, nil
}

// configureKubo changes a configuration that Kubo made: it listens at swarm and api
// alone, and looks for nobody. It returns the ID of the peer.
func configureKubo(file, swarm, api string) (id string, err error) {
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
		"Addresses": object{"Swarm": []string{swarm}, "API": api, "Gateway": []string{}},
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
