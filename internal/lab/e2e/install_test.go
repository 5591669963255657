package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"github.com/hinshun/ipcs/internal/lab"
	"github.com/hinshun/ipcs/internal/lab/labtest"
	"github.com/hinshun/ipcs/internal/lab/tools"
)

// TestInstall installs below a folder, and finds that the configuration is taken: that
// of the daemon by the daemon, the unit by systemd, and that of containerd by
// containerd, where it is imported and merged.
func TestInstall(t *testing.T) {
	labtest.Build(t)
	opts := labtest.Options(t, "install", 0)
	dest := t.TempDir()
	// The programs are built; other tests run them.
	install := exec.CommandContext(t.Context(), "make", "-o", "build", "install", "DESTDIR="+dest)
	install.Dir = labtest.Project(t)
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	bin := filepath.Join(dest, "usr/local/bin")
	t.Run("programs", func(t *testing.T) {
		for _, program := range []string{"convert", "compare", "ipcs-snapshotter"} {
			if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, program), "--help").CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", program, err, out)
			}
		}
	})
	t.Run("again", func(t *testing.T) { installAgain(t, dest) })
	t.Run("unit", func(t *testing.T) { verifyUnit(t, dest) })
	t.Run("containerd", func(t *testing.T) { imported(t, filepath.Join(opts.Tools, "containerd"), dest) })
}

// installAgain finds that configuration which somebody changed is kept.
func installAgain(t *testing.T, dest string) {
	for _, file := range []string{"etc/ipcs/config.toml", "etc/containerd/conf.d/ipcs.toml", "etc/containerd/certs.d/ipfs.localhost/hosts.toml"} {
		path := filepath.Join(dest, file)
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		changed := string(before) + "# changed\n"
		if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		again := exec.CommandContext(t.Context(), "make", "-o", "build", "install", "DESTDIR="+dest)
		again.Dir = labtest.Project(t)
		if out, err := again.CombinedOutput(); err != nil {
			t.Fatalf("make install: %v\n%s", err, out)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != changed {
			t.Errorf("%s was overwritten: %v", file, err)
		}
	}
}

// verifyUnit has systemd read the unit.
func verifyUnit(t *testing.T, dest string) {
	if err := tools.Packages(t.Context(), map[string]string{"systemd-analyze": "systemd"}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dest, "usr/local/lib/systemd/system/ipcs-snapshotter.service"))
	if err != nil {
		t.Fatal(err)
	}
	// systemd looks whether the program is there.
	here := strings.ReplaceAll(string(text), "ExecStart=", "ExecStart="+dest)
	unit := filepath.Join(t.TempDir(), "ipcs-snapshotter.service")
	if err := os.WriteFile(unit, []byte(here), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", unit).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s\n%s", err, out, here)
	}
}

// merged is what of containerd's configuration ours touches.
type merged struct {
	ProxyPlugins map[string]struct {
		Type, Address string
		Capabilities  []string
	} `toml:"proxy_plugins"`
	Plugins struct {
		Transfer struct {
			UnpackConfig []struct{ Platform, Snapshotter, Differ string } `toml:"unpack_config"`
		} `toml:"io.containerd.transfer.v1.local"`
		Diff   struct{ Default []string } `toml:"io.containerd.service.v1.diff-service"`
		Images struct {
			Snapshotter            string
			MaxConcurrentDownloads int `toml:"max_concurrent_downloads"`
			Registry               struct {
				ConfigPath string `toml:"config_path"`
			}
		} `toml:"io.containerd.cri.v1.images"`
	}
}

// imported has containerd merge the installed file into configurations that import its
// folder: one that says nothing else, and those of somebody who had another
// snapshotter before, in each version of the file that containerd 2 knows. At last, with
// the file that has ipcs images unpacked, which was installed beside it.
func imported(t *testing.T, containerd, dest string) {
	const others = `
[proxy_plugins.other]
  type = "snapshot"
  address = "/run/other.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "other"
  max_concurrent_downloads = 7
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "/etc/containerd/certs.d"
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux/amd64"
  snapshotter = "other"
`
	for name, c := range map[string]struct {
		version int
		text    string
	}{"nothing else": {4, ""}, "others": {4, others}, "others, version 3": {3, others}} {
		t.Run(name, func(t *testing.T) {
			config := filepath.Join(t.TempDir(), "config.toml")
			text := fmt.Sprintf("version = %d\nimports = ['%s/etc/containerd/conf.d/*.toml']\n%s", c.version, dest, c.text)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			m := dump(t, containerd, config)
			m.check(t, c.text != "")
			m.wantUnpack(t, "overlayfs:walking ipcs:ipcs-diff", "walking ipcs-diff")

			for from, to := range map[string]string{"containerd-unpack.toml": "ipcs.unpack.toml", "containerd-content.toml": "ipcs.zcontent.toml"} {
				merges(t, containerd, config, dest, from, to, c.text != "")
			}
		})
	}
}

// merges finds that a file which was installed beside the programs takes the place of the lists in ipcs.toml, under the name that README has for it.
func merges(t *testing.T, containerd, config, dest, from, to string, others bool) {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(labtest.Project(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if copied := "share/ipcs/" + from + " /etc/containerd/conf.d/" + to + "\n"; !strings.Contains(string(readme), copied) {
		t.Errorf("README.md does not say %q", copied)
	}
	more, err := os.ReadFile(filepath.Join(dest, "usr/local/share/ipcs", from))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dest, "etc/containerd/conf.d", to)
	if err := os.WriteFile(path, more, 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	m := dump(t, containerd, config)
	m.check(t, others)
	m.wantUnpack(t, "overlayfs:ipcs-diff native:ipcs-diff ipcs:ipcs-diff", "ipcs-diff walking")
}

// dump has containerd read and merge configuration.
func dump(t *testing.T, containerd, config string) (m merged) {
	t.Helper()
	out, err := lab.Output(exec.CommandContext(t.Context(), containerd, "--config", config, "config", "dump"))
	if err != nil {
		t.Fatal(err)
	}
	if err := toml.Unmarshal([]byte(out), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// wantUnpack checks what pulls unpack for, and which differs clients get. containerd does not
// merge lists: whoever had one of their own adds it to ours.
func (m merged) wantUnpack(t *testing.T, snapshotters, differs string) {
	t.Helper()
	var unpack []string
	for _, u := range m.Plugins.Transfer.UnpackConfig {
		unpack = append(unpack, u.Snapshotter+":"+u.Differ)
	}
	if got := strings.Join(unpack, " "); got != snapshotters {
		t.Errorf("unpacks for %s, want %s", got, snapshotters)
	}
	if got := strings.Join(m.Plugins.Diff.Default, " "); got != differs {
		t.Errorf("differs %s, want %s", got, differs)
	}
}

func (m merged) check(t *testing.T, others bool) {
	t.Helper()
	if p := m.ProxyPlugins["ipcs"]; p.Type != "snapshot" || p.Address != "/run/ipcs/snapshotter.sock" || !slices.Equal(p.Capabilities, []string{"remap-ids"}) {
		t.Errorf("proxy plugin: %+v", p)
	}
	images := m.Plugins.Images
	if images.Snapshotter != "ipcs" {
		t.Errorf("CRI's snapshotter is %s", images.Snapshotter)
	}
	if others && (m.ProxyPlugins["other"].Address == "" || images.Registry.ConfigPath == "" || images.MaxConcurrentDownloads != 7) {
		t.Errorf("something else was lost: %+v", m)
	}
}
