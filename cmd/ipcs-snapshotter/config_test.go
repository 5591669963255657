package main

import (
	"errors"
	"os"
	"path/filepath"
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
		"listen":          {"[node]\nlisten = [\"10.0.0.1:4001\"]", "an example"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(t, "--config", writeConfig(t, c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error = %v, want one with %q", err, c.want)
			}
		})
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
