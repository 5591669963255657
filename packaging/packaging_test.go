package packaging

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"
)

// TestContainerd finds that the private paths are in the places of the real ones.
func TestContainerd(t *testing.T) {
	text := Containerd("/x/y.sock", "/x/root")
	if strings.Contains(text, socket) || strings.Contains(text, diff) || strings.Contains(text, root) {
		t.Errorf("a real path is left:\n%s", text)
	}
	var config struct {
		ProxyPlugins map[string]struct {
			Address string
			Exports map[string]string
		} `toml:"proxy_plugins"`
	}
	if err := toml.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	ipcs := config.ProxyPlugins["ipcs"]
	if ipcs.Address != "/x/y.sock" || ipcs.Exports["root"] != "/x/root" {
		t.Errorf("address and root: %+v", ipcs)
	}
	if address := config.ProxyPlugins["ipcs-diff"].Address; address != "/x/diff.sock" {
		t.Errorf("address of the differ: %s", address)
	}
}

// TestHosts finds that containerd is led to the address of a daemon's registry, and that README
// shows how.
func TestHosts(t *testing.T) {
	type file struct {
		Server       string
		Capabilities []string
		Override     bool `toml:"override_path"`
	}
	var got, shown file
	text := Hosts("127.0.0.1:7")
	if err := toml.Unmarshal([]byte(text), &got); err != nil || got.Server != "http://127.0.0.1:7/v2/ipfs" || !got.Override || strings.Contains(text, registry) {
		t.Errorf("%+v, %v:\n%s", got, err, text)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, _ := strings.Cut(string(readme), "```toml\nserver = ")
	snippet, _, _ = strings.Cut("server = "+snippet, "```")
	if err := toml.Unmarshal([]byte(snippet), &shown); err != nil {
		t.Fatal(err)
	}
	got.Server = "http://" + registry + "/v2/ipfs"
	if !reflect.DeepEqual(shown, got) {
		t.Errorf("README.md shows %+v, shipped is %+v", shown, got)
	}
}

// TestMirror finds that containerd is led to the mirror of a daemon, for nothing but pulls, and that README shows how.
func TestMirror(t *testing.T) {
	type file struct {
		Host map[string]struct{ Capabilities []string }
	}
	var got, shown file
	text := Mirror("127.0.0.1:7")
	if err := toml.Unmarshal([]byte(text), &got); err != nil || strings.Contains(text, registry) {
		t.Fatalf("%+v, %v:\n%s", got, err, text)
	}
	if caps := got.Host["http://127.0.0.1:7/mirror"].Capabilities; !reflect.DeepEqual(caps, []string{"pull"}) || len(got.Host) != 1 {
		t.Errorf("containerd is told %+v", got)
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, snippet, _ := strings.Cut(string(readme), "```toml\n[host.")
	snippet, _, _ = strings.Cut("[host."+snippet, "```")
	if err := toml.Unmarshal([]byte(snippet), &shown); err != nil {
		t.Fatal(err)
	}
	if err := toml.Unmarshal([]byte(mirror), &got); err != nil {
		t.Fatal(err)
	}
	delete(got.Host, "http://127.0.0.1:7/mirror")
	if !reflect.DeepEqual(shown, got) {
		t.Errorf("README.md shows %+v, shipped is %+v", shown, got)
	}
}

// TestReadme finds that README shows the configurations that are shipped, without their
// comments.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	rest := string(readme)
	for name, text := range map[string]string{"containerd-config.toml": containerd, "containerd-unpack.toml": unpack, "containerd-content.toml": content} {
		var shipped map[string]any
		if err := toml.Unmarshal([]byte(text), &shipped); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !shows(t, rest, shipped) {
			t.Errorf("README.md does not show %s: %v", name, shipped)
		}
	}
}

// shows says whether one of the configurations in a text is this one.
func shows(t *testing.T, text string, want map[string]any) bool {
	t.Helper()
	const start = "```toml\nversion = 4\n"
	blocks := strings.Split(text, start)[1:]
	for _, b := range blocks {
		snippet, _, _ := strings.Cut(b, "```")
		var shown map[string]any
		if err := toml.Unmarshal([]byte("version = 4\n"+snippet), &shown); err != nil {
			t.Fatalf("README.md: %v", err)
		}
		if reflect.DeepEqual(shown, want) {
			return true
		}
	}
	return false
}
