package embedded_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

func TestIdentityIsKept(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	first := open(t, embedded.Config{KeyFile: key}, ipfstest.NewMemory()).ID()
	st, err := os.Stat(key)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", st.Mode(), err)
	}
	if second := open(t, embedded.Config{KeyFile: key}, ipfstest.NewMemory()).ID(); second != first {
		t.Errorf("the identity is %s, was %s", second, first)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(key), ".key-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBadConfig(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		cfg  embedded.Config
		want string
	}{
		"open key":       {embedded.Config{KeyFile: write("open", "x", 0o644)}, "chmod 600"},
		"broken key":     {embedded.Config{KeyFile: write("broken", "x", 0o600)}, "remove it"},
		"no key folder":  {embedded.Config{KeyFile: filepath.Join(dir, "no/key")}, "identity key"},
		"peer no ID":     {embedded.Config{Peers: []string{"/ip4/127.0.0.1/tcp/4001"}}, "/p2p/"},
		"no swarm key":   {embedded.Config{SwarmKey: filepath.Join(dir, "no")}, "swarm key"},
		"bad swarm key":  {embedded.Config{SwarmKey: write("psk", "/key/swarm/psk/9/\n", 0o600)}, "64 hex digits"},
		"listen nowhere": {embedded.Config{Listen: []string{"/ip4/203.0.113.1/tcp/1"}}, "203.0.113.1"},
	} {
		t.Run(name, func(t *testing.T) {
			n, err := embedded.Open(t.Context(), test.cfg, ipfstest.NewMemory())
			if err == nil {
				n.Close()
				t.Fatal("Open succeeded")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open: %v; want %q in it", err, test.want)
			}
		})
	}
}

func TestPrivateNetwork(t *testing.T) {
	dir := t.TempDir()
	psk := func(name, digit string) string {
		path := filepath.Join(dir, name)
		key := "/key/swarm/psk/1.0.0/\n/base16/\n" + strings.Repeat(digit, 64) + "\n"
		if err := os.WriteFile(path, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours, theirs := psk("ours", "a"), psk("theirs", "b")
	b := ipfstest.Blocks(t, 1, 1000)[0]
	server := ipfstest.NewMemory()
	put(t, server, b)
	srv := open(t, embedded.Config{SwarmKey: ours}, server)
	member := open(t, embedded.Config{SwarmKey: ours, Peers: srv.Addrs()}, ipfstest.NewMemory())
	stranger := open(t, embedded.Config{SwarmKey: theirs, Peers: srv.Addrs()}, ipfstest.NewMemory())
	public := open(t, embedded.Config{Peers: srv.Addrs()}, ipfstest.NewMemory())
	if _, err := member.Get(t.Context(), b.Cid); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*embedded.Node{stranger, public} {
		if info(n, srv.ID()).Connected {
			t.Error("connected without the key")
		}
	}
}
