package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hinshun/ipcs/internal/mirror"
	"github.com/hinshun/ipcs/ipfs/routing"
	"github.com/hinshun/ipcs/snapshotter"
)

// defaultConfigPath is read when it is there and no other file is named.
const defaultConfigPath = "/etc/ipcs/config.toml"

// configVersion is the version of the configuration file's format.
const configVersion = 1

// config is the daemon's configuration: the defaults, then the file, then flags.
// packaging/config.toml says what each setting means.
type config struct {
	Version    int              `toml:"version"`
	Root       string           `toml:"root"`
	State      string           `toml:"state"`
	LogLevel   slog.Level       `toml:"log_level"`
	Node       nodeConfig       `toml:"node"`
	Origin     originConfig     `toml:"origin"`
	Fetch      fetchConfig      `toml:"fetch"`
	Profile    profileConfig    `toml:"profile"`
	Containerd containerdConfig `toml:"containerd"`
	Store      storeConfig      `toml:"store"`
	Content    contentConfig    `toml:"content"`
	Mounts     mountsConfig     `toml:"mounts"`
	Metrics    metricsConfig    `toml:"metrics"`
	Registry   registryConfig   `toml:"registry"`
	Routing    routingConfig    `toml:"routing"`
	Gateway    gatewayConfig    `toml:"gateway"`

	AllowUnverifiedDiffIDs bool `toml:"allow_unverified_diff_ids"`

	pprof string // folder for profiles; of one run, and so no setting of the file
}

type nodeConfig struct {
	Kubo     string   `toml:"kubo"`
	Listen   []string `toml:"listen"`
	Peers    []string `toml:"peers"`
	Allow    []string `toml:"allow"`
	Routers  []string `toml:"routers"`
	DHT      bool     `toml:"dht"`
	MDNS     bool     `toml:"mdns"`
	Hints    bool     `toml:"hints"`
	SwarmKey string   `toml:"swarm_key"`
	Timeout  duration `toml:"timeout"`
}

type fetchConfig struct {
	Fill     snapshotter.FillMode `toml:"fill"`
	FillRate byteSize             `toml:"fill_rate"`
}

type profileConfig struct {
	Window duration `toml:"window"`
}

type metricsConfig struct {
	Address string `toml:"address"`
	Pprof   bool   `toml:"pprof"`
}

// routingConfig is of the server that tells nodes of each other.
type routingConfig struct {
	Address string `toml:"address"`
}

type gatewayConfig struct {
	Address string `toml:"address"`
}

type containerdConfig struct {
	Address string `toml:"address"`
}

type mountsConfig struct {
	Image snapshotter.ImageMode `toml:"image"`
	Data  snapshotter.DataMode  `toml:"data"`
}

// duration is a time.Duration that TOML writes as "30s".
type duration time.Duration

// UnmarshalText parses "30s", "1m30s".
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

func defaultConfig() config {
	return config{
		Version:    configVersion,
		Root:       "/var/lib/ipcs",
		State:      "/run/ipcs",
		LogLevel:   slog.LevelInfo,
		Node:       nodeConfig{Timeout: duration(30 * time.Second), Hints: true},
		Origin:     originConfig{Registries: true, HostsDir: "/etc/containerd/certs.d"},
		Fetch:      fetchConfig{Fill: snapshotter.FillOn},
		Profile:    profileConfig{Window: duration(30 * time.Second)},
		Containerd: containerdConfig{Address: "/run/containerd/containerd.sock"},
		Store:      storeConfig{Compressed: true},
		Content:    contentConfig{Share: mirror.SharePublic},
	}
}

func (c config) snapshotterSocket() string { return filepath.Join(c.State, "snapshotter.sock") }
func (c config) apiSocket() string         { return filepath.Join(c.State, "api.sock") }
func (c config) relaySocket() string       { return filepath.Join(c.State, "fuse.sock") }
func (c config) contentSocket() string     { return filepath.Join(c.State, "content.sock") }
func (c config) diffSocket() string        { return filepath.Join(c.State, "diff.sock") }
func (c config) criSocket() string         { return filepath.Join(c.State, "cri.sock") }

// daemonFlags are the flags that the daemon and its subcommands share. A flag that is
// given wins over the file.
type daemonFlags struct {
	configPath string
	given      config
	logLevel   string
}

func (f *daemonFlags) register(cmd *cobra.Command) {
	def := defaultConfig()
	all := cmd.PersistentFlags()
	all.StringVar(&f.configPath, "config", "", "configuration file (default "+defaultConfigPath+", if it is there)")
	all.StringVar(&f.given.State, "state", def.State, "folder for sockets and mounts")
	own := cmd.Flags()
	own.StringVar(&f.given.Root, "root", def.Root, "folder for all that is kept")
	own.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")
	own.StringVar(&f.given.Node.Kubo, "kubo", "", "address of a Kubo daemon to be this daemon's node: auto, the path of its socket or repository, a multiaddr or a URL (default: a node of its own)")
	own.StringArrayVar(&f.given.Node.Listen, "listen", nil, "multiaddr to listen on for peers (repeatable; default: none)")
	own.StringArrayVar(&f.given.Node.Peers, "peer", nil, "multiaddr of a peer, with /p2p/ID (repeatable)")
	own.StringArrayVar(&f.given.Node.Allow, "allow-peer", nil, "ID of a peer that may connect, besides those of --peer (repeatable; default: all)")
	own.StringArrayVar(&f.given.Node.Routers, "router", nil, "URL of a server of /routing/v1 to find peers by, such as http://10.0.0.1:8181 (repeatable)")
	own.BoolVar(&f.given.Node.DHT, "dht", false, "find nodes, and be found, in a private DHT of ipcs nodes; it needs --swarm-key or --allow-peer")
	own.BoolVar(&f.given.Node.MDNS, "mdns", false, "find nodes, and be found, on this machine's links by mDNS; it needs --listen")
	own.BoolVar(&f.given.Node.Hints, "hints", def.Node.Hints, "fetch from peers that an image names, if nobody else has it")
	own.StringVar(&f.given.Routing.Address, "routing-address", "", "host:port to tell other nodes of each other on, such as 10.0.0.1:8181 (default: off)")
	own.StringVar(&f.given.Node.SwarmKey, "swarm-key", "", "file with the key of a private IPFS network")
	own.DurationVar((*time.Duration)(&f.given.Node.Timeout), "timeout", time.Duration(def.Node.Timeout), "how long a read waits for a peer before it fails")
	own.StringVar((*string)(&f.given.Fetch.Fill), "fill", string(def.Fetch.Fill), "fetch all files of an image that a container uses: on, annotated (if the image says so) or off")
	own.Var(&f.given.Fetch.FillRate, "fill-rate", "bytes a second that this may take, such as 20MB (default: no limit)")
	own.DurationVar((*time.Duration)(&f.given.Profile.Window), "profile-window", time.Duration(def.Profile.Window), "how long it is recorded what the first container of an image reads; 0 records nothing")
	own.StringVar(&f.given.Containerd.Address, "containerd", def.Containerd.Address, "containerd's socket, for layer blobs, unpacking and committing")
	own.Var(&f.given.Store.Limit, "store-limit", "how much of the disk what was fetched may use, as 50GB or 40GiB; what was not used for longest goes then (default: no limit)")
	own.BoolVar(&f.given.Store.Compressed, "store-compressed", def.Store.Compressed, "keep files compressed as well, for peers; false removes what was kept")
	own.StringVar(&f.given.Metrics.Address, "metrics-address", "", "host:port to serve /metrics, /healthz and /readyz on, such as 127.0.0.1:9464 (default: off)")
	own.BoolVar(&f.given.Metrics.Pprof, "metrics-pprof", false, "serve Go's /debug/pprof/ too, there and on the API's socket: whoever can connect can have this process profiled")
	own.StringVar(&f.given.Registry.Address, "registry-address", "", "host:port to answer on as a read-only registry, for images that are on IPFS (HOST:PORT/ipfs/CID), such as 127.0.0.1:5050 (default: off)")
	own.StringVar((*string)(&f.given.Content.Share), "share", string(def.Content.Share), "which blobs of the content store peers get: public (what anybody gets from its registry), all or none")
	own.StringVar(&f.given.Gateway.Address, "gateway-address", "", "host:port to serve a trustless IPFS gateway on, of what is on this machine, such as 127.0.0.1:8080 (default: off)")
	own.BoolVar(&f.given.AllowUnverifiedDiffIDs, "allow-unverified-diff-ids", false, "mount images that kept their diffIDs lazily, unproven: only if all images come from someone trusted")
	own.StringVar(&f.given.pprof, "pprof", "", "write CPU, allocation and blocking profiles of this run into `DIR`")
}

// config puts defaults, file and flags together and checks the result.
func (f *daemonFlags) config(set *pflag.FlagSet) (config, error) {
	cfg, err := loadConfig(f.configPath)
	if err != nil {
		return config{}, err
	}
	overrides := map[string]func(){
		"state":                     func() { cfg.State = f.given.State },
		"root":                      func() { cfg.Root = f.given.Root },
		"kubo":                      func() { cfg.Node.Kubo = f.given.Node.Kubo },
		"listen":                    func() { cfg.Node.Listen = f.given.Node.Listen },
		"peer":                      func() { cfg.Node.Peers = f.given.Node.Peers },
		"allow-peer":                func() { cfg.Node.Allow = f.given.Node.Allow },
		"router":                    func() { cfg.Node.Routers = f.given.Node.Routers },
		"dht":                       func() { cfg.Node.DHT = f.given.Node.DHT },
		"mdns":                      func() { cfg.Node.MDNS = f.given.Node.MDNS },
		"hints":                     func() { cfg.Node.Hints = f.given.Node.Hints },
		"routing-address":           func() { cfg.Routing.Address = f.given.Routing.Address },
		"swarm-key":                 func() { cfg.Node.SwarmKey = f.given.Node.SwarmKey },
		"timeout":                   func() { cfg.Node.Timeout = f.given.Node.Timeout },
		"fill":                      func() { cfg.Fetch.Fill = f.given.Fetch.Fill },
		"fill-rate":                 func() { cfg.Fetch.FillRate = f.given.Fetch.FillRate },
		"profile-window":            func() { cfg.Profile.Window = f.given.Profile.Window },
		"containerd":                func() { cfg.Containerd.Address = f.given.Containerd.Address },
		"store-limit":               func() { cfg.Store.Limit = f.given.Store.Limit },
		"share":                     func() { cfg.Content.Share = f.given.Content.Share },
		"store-compressed":          func() { cfg.Store.Compressed = f.given.Store.Compressed },
		"metrics-address":           func() { cfg.Metrics.Address = f.given.Metrics.Address },
		"gateway-address":           func() { cfg.Gateway.Address = f.given.Gateway.Address },
		"metrics-pprof":             func() { cfg.Metrics.Pprof = f.given.Metrics.Pprof },
		"registry-address":          func() { cfg.Registry.Address = f.given.Registry.Address },
		"pprof":                     func() { cfg.pprof = f.given.pprof },
		"allow-unverified-diff-ids": func() { cfg.AllowUnverifiedDiffIDs = f.given.AllowUnverifiedDiffIDs },

		"log-level": func() {
			if e := cfg.LogLevel.UnmarshalText([]byte(f.logLevel)); e != nil {
				err = fmt.Errorf("%w: --log-level %q: one of debug, info, warn, error", errUsage, f.logLevel)
			}
		},
	}
	set.Visit(func(flag *pflag.Flag) {
		if apply, ok := overrides[flag.Name]; ok {
			apply()
		}
	})
	if err != nil {
		return config{}, err
	}
	return cfg, cfg.validate()
}

// loadConfig reads the file at path, or the default file if path is empty and there
// is one.
func loadConfig(path string) (config, error) {
	cfg := defaultConfig()
	asked := path != ""
	if !asked {
		path = defaultConfigPath
	}
	text, err := os.ReadFile(path)
	if !asked && errors.Is(err, fs.ErrNotExist) {
		return cfg, nil
	}
	if err != nil {
		return config{}, fmt.Errorf("read configuration: %w", err)
	}
	return cfg, parseConfig(path, string(text), &cfg)
}

// parseConfig fills cfg from TOML. Settings that it does not know are errors: a
// misspelt one would be ignored silently.
func parseConfig(path, text string, cfg *config) error {
	dec := toml.NewDecoder(strings.NewReader(text)).DisallowUnknownFields()
	if err := dec.Decode(cfg); err != nil {
		var missing *toml.StrictMissingError
		if errors.As(err, &missing) {
			return fmt.Errorf("configuration %s: unknown setting:\n%s", path, missing.String())
		}
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	// The decoder takes any text for what is a string, and asks for no UnmarshalText.
	for name, err := range map[string]error{
		"mounts.image": cfg.Mounts.Image.UnmarshalText([]byte(cfg.Mounts.Image)),
		"mounts.data":  cfg.Mounts.Data.UnmarshalText([]byte(cfg.Mounts.Data)),
	} {
		if err != nil {
			return fmt.Errorf("configuration %s: %s: %w", path, name, err)
		}
	}
	if cfg.Version != configVersion {
		return fmt.Errorf("configuration %s: version %d is not known here; this daemon reads version %d", path, cfg.Version, configVersion)
	}
	return nil
}

func (c config) validate() error {
	for name, path := range map[string]string{"root": c.Root, "state": c.State} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("configuration: %s must be an absolute path, not %q", name, path)
		}
		// They stand in mount options, where these separate.
		if strings.ContainsAny(path, ":,\\") {
			return fmt.Errorf("configuration: %s %q must not contain a colon, comma or backslash", name, path)
		}
	}
	if !filepath.IsAbs(c.Containerd.Address) {
		return fmt.Errorf("configuration: containerd.address must be the absolute path of containerd's socket, not %q", c.Containerd.Address)
	}
	if c.Store.Limit < 0 {
		return errors.New("configuration: store.limit must not be less than zero, which is no limit")
	}
	for name, of := range map[string]struct{ address, example string }{
		"metrics.address": {c.Metrics.Address, "127.0.0.1:9464"},
		"routing.address": {c.Routing.Address, "10.0.0.1:8181"},
	} {
		if _, _, err := net.SplitHostPort(of.address); of.address != "" && err != nil {
			return fmt.Errorf("configuration: %s %q: %w (an example: %s)", name, of.address, err, of.example)
		}
	}
	if err := c.Registry.validate(); err != nil {
		return err
	}
	if err := c.Gateway.validate(); err != nil {
		return err
	}
	if err := c.Origin.validate(); err != nil {
		return err
	}
	if err := c.Content.Share.UnmarshalText([]byte(c.Content.Share)); err != nil {
		return fmt.Errorf("configuration: content.share: %w", err)
	}
	if err := c.checkKubo(); err != nil {
		return err
	}
	switch c.Fetch.Fill {
	case snapshotter.FillOn, snapshotter.FillAnnotated, snapshotter.FillOff:
	default:
		return fmt.Errorf("configuration: fetch.fill must be on, annotated or off, not %q", c.Fetch.Fill)
	}
	if c.Fetch.FillRate < 0 {
		return errors.New("configuration: fetch.fill_rate must not be negative; 0 is no limit")
	}
	if c.Profile.Window < 0 {
		return errors.New("configuration: profile.window must not be negative")
	}
	return c.Node.validate()
}

// validate checks what names other nodes.
func (c nodeConfig) validate() error {
	if c.Timeout <= 0 {
		return errors.New("configuration: node.timeout must be more than zero")
	}
	for _, router := range c.Routers {
		if err := routing.CheckURL(router); err != nil {
			return fmt.Errorf("configuration: node.routers: %w", err)
		}
	}
	for _, id := range c.Allow {
		if !isPeerID(id) {
			return fmt.Errorf("configuration: node.allow %q is not the ID of a peer (an example: 12D3KooW…, without an address; \"ipcs-snapshotter status\" on the peer shows it)", id)
		}
	}
	for _, addr := range c.Listen {
		if _, err := multiaddr.NewMultiaddr(addr); err != nil {
			return fmt.Errorf("configuration: node.listen %q: %w (an example: /ip4/10.0.0.2/tcp/4001)", addr, err)
		}
	}
	for _, addr := range c.Peers {
		m, err := multiaddr.NewMultiaddr(addr)
		if err == nil {
			_, err = m.ValueForProtocol(multiaddr.P_P2P)
		}
		if err != nil {
			return fmt.Errorf("configuration: node.peers %q: %w (an example: /ip4/10.0.0.1/tcp/4001/p2p/12D3KooW…; \"ipcs-snapshotter status\" on the peer shows it)", addr, err)
		}
	}
	return c.checkFinding()
}

// isPeerID says whether id is one, in the form that follows /p2p/.
func isPeerID(id string) bool {
	_, err := multiaddr.NewComponent("p2p", id)
	return err == nil
}
