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
	if strings.Contains(text, socket) || strings.Contains(text, root) {
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
}

// TestReadme finds that README shows the configuration that is installed, without its
// comments.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(readme), "```toml\nversion = 4\n")
	snippet, _, closed := strings.Cut(rest, "```")
	if !ok || !closed {
		t.Fatal("README.md has no configuration of containerd")
	}
	var shown, installed map[string]any
	if err := toml.Unmarshal([]byte("version = 4\n"+snippet), &shown); err != nil {
		t.Fatalf("README.md: %v", err)
	}
	if err := toml.Unmarshal([]byte(containerd), &installed); err != nil {
		t.Fatalf("containerd-config.toml: %v", err)
	}
	if !reflect.DeepEqual(shown, installed) {
		t.Errorf("README.md shows %v\nand containerd-config.toml is %v", shown, installed)
	}
}
