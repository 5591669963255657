package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/ipcs/snapshotter"
)

// parse runs the daemon's flags through cobra, as main does, without running it.
func parse(t *testing.T, args ...string) (config, error) {
	t.Helper()
	var flags daemonFlags
	cmd := rootCommand()
	cmd.ResetFlags()
	flags.register(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		t.Fatal(err)
	}
	return flags.config(cmd.Flags())
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagsWinOverTheFile(t *testing.T) {
	path := writeConfig(t, `
root = "/data/ipcs"
state = "/run/other"
log_level = "debug"
[node]
timeout = "7s"
[containerd]
address = "/run/a.sock"
[store]
limit = "1GiB"
`)
	if cfg, err := parse(t, "--config", path); err != nil || cfg.Store.Limit != 1<<30 {
		t.Fatalf("limit of the file: %d, %v", cfg.Store.Limit, err)
	}
	cfg, err := parse(t, "--config", path, "--store-limit", "50GB", "--state", "/run/given", "--containerd", "/run/b.sock")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Root != "/data/ipcs" || cfg.State != "/run/given" || time.Duration(cfg.Node.Timeout) != 7*time.Second || cfg.LogLevel != -4 || cfg.Containerd.Address != "/run/b.sock" || cfg.Store.Limit != 50e9 {
		t.Fatalf("config = %+v", cfg)
	}
}

func TestBadConfigurationSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"unknown setting": {`rooot = "/x"`, "unknown setting"},
		"version":         {`version = 9`, "version 9 is not known"},
		"relative root":   {`root = "x"`, "absolute path"},
		"colon in root":   {`root = "/a:b"`, "must not contain"},
		"timeout":         {"[node]\ntimeout = \"0s\"", "more than zero"},
		"peer without ID": {"[node]\npeers = [\"/ip4/10.0.0.1/tcp/4001\"]", "an example"},
		"allow address":   {"[node]\nallow = [\"/ip4/10.0.0.1/tcp/4001\"]", "without an address"},
		"allow nonsense":  {"[node]\nallow = [\"anybody\"]", "an example"},
		"router":          {"[node]\nrouters = [\"10.0.0.1:8181\"]", "an example"},
		"router's path":   {"[node]\nrouters = [\"http://10.0.0.1:8181/api\"]", "an example"},
		"DHT for all":     {"[node]\ndht = true", "set node.swarm_key"},
		"mDNS of nobody":  {"[node]\nmdns = true", "set node.listen"},
		"mDNS, loopback":  {"[node]\nmdns = true\nlisten = [\"/ip4/127.0.0.1/tcp/4001\", \"/ip6/::1/tcp/4001\"]", "set node.listen"},
		"Kubo's DHT":      {"[node]\nkubo = \"auto\"\ndht = true\nswarm_key = \"/k\"", "node.dht is of this daemon's own node"},
		"Kubo's mDNS":     {"[node]\nkubo = \"auto\"\nmdns = true", "Discovery.MDNS"},
		"hints":           {"[node]\nhints = \"some\"", "hints"},
		"routing":         {"[routing]\naddress = \"10.0.0.1\"", "routing.address"},
		"image mode":      {"[mounts]\nimage = \"fast\"", "mounts.image: \"fast\" is none of auto"},
		"data mode":       {"[mounts]\ndata = \"file\"", "mounts.data: \"file\" is none of auto"},
		"fill":            {"[fetch]\nfill = \"yes\"", "on, annotated or off"},
		"fill rate":       {"[fetch]\nfill_rate = \"much\"", "an example"},
		"profile window":  {"[profile]\nwindow = \"-1s\"", "must not be negative"},
		"containerd":      {"[containerd]\naddress = \"containerd.sock\"", "absolute path"},
		"store limit":     {"[store]\nlimit = \"plenty\"", "an example"},
		"negative limit":  {"[store]\nlimit = -1", "less than zero"},
		"way of images":   {"[mounts]\nimage = \"tape\"", "mounts.image: \"tape\" is none of auto"},
		"way of data":     {"[mounts]\ndata = \"tape\"", "mounts.data: \"tape\" is none of auto"},
		"registry":        {"[registry]\naddress = \"5050\"", "an example: 127.0.0.1:5050"},
		"gateway port":    {"[gateway]\naddress = \"8080\"", "gateway.address \"8080\""},
		"gateway to all":  {"[gateway]\naddress = \":8080\"", "names no host"},
		"listen":          {"[node]\nlisten = [\"10.0.0.1:4001\"]", "an example"},
		"kubo nowhere":    {"[node]\nkubo = \"5001\"", "node.kubo: IPFS API address \"5001\""},
		"kubo is us":      {"state = \"/run/x\"\n[node]\nkubo = \"/unix/run/x/api.sock\"", "own socket"},
		"kubo listens":    {"[node]\nkubo = \"auto\"\nlisten = [\"/ip4/10.0.0.1/tcp/4001\"]", "node.listen is of this daemon's own node, and with node.kubo it has none: Addresses.Swarm"},
		"kubo's peers":    {"[node]\nkubo = \"auto\"\npeers = [\"/ip4/10.0.0.1/tcp/4001/p2p/12D3KooWAkgh\"]", "Peering.Peers"},
		"kubo's network":  {"[node]\nkubo = \"auto\"\nswarm_key = \"/etc/ipcs/swarm.key\"", "as swarm.key"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "--config", writeConfig(t, c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestRegistryAddress is off, unless the file or the flag, which wins, says where.
func TestRegistryAddress(t *testing.T) {
	file := writeConfig(t, "[registry]\naddress = \"127.0.0.1:1\"")
	for want, args := range map[string][]string{
		"":            {"--config", writeConfig(t, "")},
		"127.0.0.1:1": {"--config", file},
		"[::1]:2":     {"--config", file, "--registry-address", "[::1]:2"},
	} {
		if cfg, err := parse(t, args...); err != nil || cfg.Registry.Address != want {
			t.Errorf("%q: %q, %v; want %q", args, cfg.Registry.Address, err, want)
		}
	}
}

// TestShutByDefault has no address for others before one is configured.
func TestShutByDefault(t *testing.T) {
	cfg, err := parse(t)
	if err != nil {
		t.Fatal(err)
	}
	if len(cfg.Node.Listen) > 0 || cfg.Metrics.Address != "" || cfg.Routing.Address != "" {
		t.Errorf("it listens on %v, %q and %q", cfg.Node.Listen, cfg.Metrics.Address, cfg.Routing.Address)
	}
}

func TestAllow(t *testing.T) {
	const a, b = "12D3KooWKAAkJfJgxpnpVBpQsMXQDtcyBEYQhT3WGYZjQVNtkGuK", "12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo"
	path := writeConfig(t, "[node]\nallow = [\""+a+"\"]")
	if cfg, err := parse(t, "--config", path); err != nil || !slices.Equal(cfg.Node.Allow, []string{a}) {
		t.Errorf("allow is %v, %v", cfg.Node.Allow, err)
	}
	if cfg, err := parse(t, "--config", path, "--allow-peer", b); err != nil || !slices.Equal(cfg.Node.Allow, []string{b}) {
		t.Errorf("allow is %v, %v", cfg.Node.Allow, err)
	}
}

func TestFound(t *testing.T) {
	if cfg, err := parse(t); err != nil || !cfg.Node.Hints || len(cfg.Node.Routers) > 0 {
		t.Errorf("by default: hints %v, routers %v, %v", cfg.Node.Hints, cfg.Node.Routers, err)
	}
	path := writeConfig(t, "[node]\nrouters = [\"http://10.0.0.1:8181\"]\nhints = false\n[routing]\naddress = \"10.0.0.1:8181\"")
	cfg, err := parse(t, "--config", path)
	if err != nil || cfg.Node.Hints || !slices.Equal(cfg.Node.Routers, []string{"http://10.0.0.1:8181"}) || cfg.Routing.Address != "10.0.0.1:8181" {
		t.Errorf("of the file: %+v, %+v, %v", cfg.Node, cfg.Routing, err)
	}
	cfg, err = parse(t, "--config", path, "--router", "https://b", "--hints=true", "--routing-address", ":1")
	if err != nil || !cfg.Node.Hints || !slices.Equal(cfg.Node.Routers, []string{"https://b"}) || cfg.Routing.Address != ":1" {
		t.Errorf("of flags: %+v, %+v, %v", cfg.Node, cfg.Routing, err)
	}
}

// TestFindingIsOff has neither DHT nor mDNS, unless the file or a flag, which wins, says so.
func TestFindingIsOff(t *testing.T) {
	const listen = "[node]\nlisten = [\"/ip4/127.0.0.1/tcp/1\", \"/ip4/0.0.0.0/tcp/1\"]\nswarm_key = \"/etc/ipcs/swarm.key\"\n"
	on := writeConfig(t, listen+"dht = true\nmdns = true")
	for name, tt := range map[string]struct {
		args      []string
		dht, mdns bool
	}{
		"default": {[]string{"--config", writeConfig(t, listen)}, false, false},
		"file":    {[]string{"--config", on}, true, true},
		"flags":   {[]string{"--config", on, "--dht=false", "--mdns=false"}, false, false},
		"allow":   {[]string{"--config", writeConfig(t, ""), "--dht", "--allow-peer", "12D3KooWKAAkJfJgxpnpVBpQsMXQDtcyBEYQhT3WGYZjQVNtkGuK"}, true, false},
	} {
		if cfg, err := parse(t, tt.args...); err != nil || cfg.Node.DHT != tt.dht || cfg.Node.MDNS != tt.mdns {
			t.Errorf("%s: dht %v, mdns %v, %v", name, cfg.Node.DHT, cfg.Node.MDNS, err)
		}
	}
}

func TestKubo(t *testing.T) {
	t.Setenv("IPFS_PATH", t.TempDir())
	for _, addr := range []string{"auto", "/data/ipfs", "/unix/run/kubo.sock", "/ip4/127.0.0.1/tcp/5001", "http://127.0.0.1:5001"} {
		for how, args := range map[string][]string{
			"file": {"--config", writeConfig(t, "[node]\nkubo = \""+addr+"\"")},
			"flag": {"--config", writeConfig(t, "[node]\nkubo = \"/unix/other\""), "--kubo", addr},
		} {
			if cfg, err := parse(t, args...); err != nil || cfg.Node.Kubo != addr {
				t.Errorf("%s in the %s is %q, %v", addr, how, cfg.Node.Kubo, err)
			}
		}
	}
}

func TestMounts(t *testing.T) {
	for text, want := range map[string]mountsConfig{
		"":                                  {},
		"image = \"auto\"\ndata = \"auto\"": {},
		"image = \"loop\"":                  {Image: snapshotter.ImageLoop},
		"data = \"hidden\"":                 {Data: snapshotter.DataHidden},
	} {
		if cfg, err := parse(t, "--config", writeConfig(t, "[mounts]\n"+text)); err != nil || cfg.Mounts != want {
			t.Errorf("%q is %+v, %v", text, cfg.Mounts, err)
		}
	}
}

func TestFillRate(t *testing.T) {
	for text, want := range map[string]byteSize{"20MB": 20_000_000, "16MiB": 16 << 20, "1000": 1000, "0": 0} {
		for how, args := range map[string][]string{
			"file": {"--config", writeConfig(t, "[fetch]\nfill_rate = \""+text+"\"")},
			"flag": {"--config", writeConfig(t, "[fetch]\nfill_rate = \"7\""), "--fill-rate", text},
		} {
			if cfg, err := parse(t, args...); err != nil || cfg.Fetch.FillRate != want {
				t.Errorf("%s in the %s is %d, %v", text, how, cfg.Fetch.FillRate, err)
			}
		}
	}
}

func TestGatewayAddress(t *testing.T) {
	if cfg, err := parse(t, "--config", writeConfig(t, "")); err != nil || cfg.Gateway.Address != "" {
		t.Errorf("by default the gateway is at %q, %v", cfg.Gateway.Address, err)
	}
	path := writeConfig(t, "[gateway]\naddress = \"127.0.0.1:8080\"")
	for want, args := range map[string][]string{
		"127.0.0.1:8080": {"--config", path}, "[::1]:81": {"--config", path, "--gateway-address", "[::1]:81"}, "0.0.0.0:82": {"--config", path, "--gateway-address=0.0.0.0:82"},
		"": {"--config", path, "--gateway-address="},
	} {
		if cfg, err := parse(t, args...); err != nil || cfg.Gateway.Address != want {
			t.Errorf("%q: %q, %v; want %q", args, cfg.Gateway.Address, err, want)
		}
	}
}

func TestWrongUsageExitsWith2(t *testing.T) {
	for _, args := range [][]string{{"--no-such-flag"}, {"extra"}, {"status", "extra"}, {"--log-level", "loud", "--config", writeConfig(t, "")}, {"--fill-rate", "much", "--config", writeConfig(t, "")}} {
		cmd := rootCommand()
		cmd.SetArgs(args)
		if code := exitCode(cmd.ExecuteContext(t.Context())); code != 2 {
			t.Errorf("%q exits with %d, want 2", args, code)
		}
	}
	if code := exitCode(errors.New("anything else")); code != 1 {
		t.Errorf("an error exits with %d, want 1", code)
	}
}

func TestSocketThatIsTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	l, err := listenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket has mode %v, %v; want 0600", info.Mode(), err)
	}
	if _, err := listenUnix(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Fatalf("second listen: %v", err)
	}
	// A socket whose process is gone is replaced.
	l.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	l.Close()
	l, err = listenUnix(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(t.Context(), path); err == nil {
		t.Fatal("a plain file in the socket's place was replaced")
	}
}

// TestMountModes finds that ways to mount are known by their names.
func TestMountModes(t *testing.T) {
	for text, want := range map[string]snapshotter.Mounts{
		"":                                   {},
		"image = 'auto'\ndata = 'auto'":      {},
		"image = 'fuse'\ndata = 'served'":    {Image: snapshotter.ImageFuse, Data: snapshotter.DataServed},
		"image = 'loop'\ndata = 'data-only'": {Image: snapshotter.ImageLoop, Data: snapshotter.DataOnly},
	} {
		cfg := defaultConfig()
		if err := parseConfig("test", "version = 1\n[mounts]\n"+text, &cfg); err != nil || cfg.Mounts.Image != want.Image || cfg.Mounts.Data != want.Data {
			t.Errorf("%q: %+v, %v", text, cfg.Mounts, err)
		}
	}
}
