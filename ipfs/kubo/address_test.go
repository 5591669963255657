package kubo

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

func TestPermissionDenied(t *testing.T) {
	c, err := New("/run/ipcs/api.sock")
	if err != nil {
		t.Fatal(err)
	}
	denied := &net.OpError{Op: "dial", Net: "unix", Err: os.NewSyscallError("connect", syscall.EACCES)}
	err = c.failed(t.Context(), "list pins", denied)
	if !errors.Is(err, ErrNoDaemon) || !strings.Contains(err.Error(), "run as root") || !strings.Contains(err.Error(), "/run/ipcs/api.sock") {
		t.Errorf("a socket we may not use: %v", err)
	}
}

// TestPasswordIsNotShown looks for the password of an address in errors.
func TestPasswordIsNotShown(t *testing.T) {
	for _, addr := range []string{"http://user:s3cret@127.0.0.1:1", "http://user:s3cret@[::1:1", "http://user:s3cret@"} {
		c, err := New(addr)
		if err == nil {
			_, err = c.Has(t.Context(), ipfs.RawCid(strings.Repeat("x", 32)))
		}
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

// TestLocate finds Kubo by its repository, and by the file there that says where it is.
func TestLocate(t *testing.T) {
	write := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, apiFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	for text, want := range map[string]string{
		"/ip4/127.0.0.1/tcp/5001":    "tcp 127.0.0.1:5001",
		"/ip4/127.0.0.1/tcp/5001\n":  "tcp 127.0.0.1:5001",
		"/ip6/::1/tcp/7":             "tcp [::1]:7",
		"/unix/run/kubo/api.sock":    "unix /run/kubo/api.sock",
		"/dns/node.example/tcp/5001": "tcp node.example:5001",
	} {
		dir := write(text)
		for _, path := range []string{dir, filepath.Join(dir, apiFile)} {
			if network, addr, err := locate(path); err != nil || network+" "+addr != want {
				t.Errorf("%q at %s: %s %s, %v", text, path, network, addr, err)
			}
		}
	}
	for text, want := range map[string]string{
		"":                                "multiaddr",
		"127.0.0.1:5001":                  "multiaddr",
		"/ip4/127.0.0.1/udp/5001":         "no TCP address",
		"/ip4/127.0.0.1/tcp/443/tls":      "as a URL",
		strings.Repeat("/ip4/1.1.1", 1e5): "multiaddr",
	} {
		if _, _, err := locate(write(text)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), apiFile) {
			t.Errorf("%.100q: %v", text, err)
		}
	}
	if _, _, err := locate(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a repository whose Kubo does not run: %v", err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if network, addr, err := locate(l.Addr().String()); err != nil || network != "unix" || addr != l.Addr().String() {
		t.Errorf("a socket: %s %s, %v", network, addr, err)
	}
}

// TestAuto finds the repository as Kubo's own tools do.
func TestAuto(t *testing.T) {
	t.Setenv("HOME", "/home/someone")
	t.Setenv("IPFS_PATH", "")
	if at, err := parseAddr(Auto); err != nil || at.path != "/home/someone/.ipfs" {
		t.Errorf("%+v, %v", at, err)
	}
	t.Setenv("IPFS_PATH", "/data/ipfs")
	if at, err := parseAddr(Auto); err != nil || at.path != "/data/ipfs" {
		t.Errorf("%+v, %v", at, err)
	}
	t.Setenv("HOME", "")
	t.Setenv("IPFS_PATH", "")
	if _, err := parseAddr(Auto); err == nil || !strings.Contains(err.Error(), "IPFS_PATH") {
		t.Errorf("with neither: %v", err)
	}
}

// FuzzAPIFile finds that whatever is in the file, what is dialled has a network and an address.
func FuzzAPIFile(f *testing.F) {
	for _, text := range []string{"/ip4/127.0.0.1/tcp/5001", "/unix/run/api.sock", "/ip6/::1/tcp/1/http", "", "x"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		network, addr, err := parseAPIFile("api", text)
		if err == nil && (network != "unix" && network != "tcp" || addr == "") {
			t.Errorf("%q: %q %q", text, network, addr)
		}
	})
}

// TestNoAddress refuses what leads nowhere, before anything is asked there.
func TestNoAddress(t *testing.T) {
	for _, addr := range []string{"", "5001", "ftp://host", "ftp://host:21", "host:", "host:http", "host:1/path", "http://", "/ip4/1.2.3/tcp/1", "/dns/x/udp/1"} {
		if _, err := New(addr); err == nil || !strings.Contains(err.Error(), "use the path of a socket") {
			t.Errorf("%q: %v", addr, err)
		}
	}
	for _, addr := range []string{"host:1", "[::1]:5001", "127.0.0.1:5001", "http://host/prefix/"} {
		if _, err := New(addr); err != nil {
			t.Errorf("%q: %v", addr, err)
		}
	}
}
