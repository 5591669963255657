package embedded_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/embedded"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
)

// TestAllow lets in who is listed and who is configured, and nobody else, whoever dials.
func TestAllow(t *testing.T) {
	friend, stranger := startHost(t), startHost(t)
	configured := open(t, embedded.Config{}, ipfstest.NewMemory())
	n := open(t, embedded.Config{Allow: []string{friend.ID().String()}, Peers: configured.Addrs()}, ipfstest.NewMemory())
	waitConnected(t, n, configured.ID())
	if err := friend.Connect(t.Context(), peerInfo(t, n)); err != nil {
		t.Fatal(err)
	}
	waitConnected(t, n, friend.ID().String())
	// The stranger has shaken hands before it is refused, and so may be told of a connection, but
	// has no stream on it.
	if err := stranger.Connect(t.Context(), peerInfo(t, n)); err == nil {
		if s, err := stranger.NewStream(t.Context(), peerInfo(t, n).ID, blocksProtocol); err == nil {
			// To open and to write may only be queued.
			_, werr := s.Write([]byte{1})
			if _, err := s.Read(make([]byte, 1)); werr == nil && err == nil {
				t.Error("a stranger is spoken to")
			}
		}
	}
	if p := info(n, stranger.ID().String()); p.Connected {
		t.Error("a stranger is connected")
	}
	if _, err := embedded.Open(t.Context(), embedded.Config{Allow: []string{addrOf(friend)}}, ipfstest.NewMemory()); err == nil {
		t.Error("an address was taken for the ID of a peer")
	}
}

// TestNothingListensUnlessConfigured starts a node that is only told whom to fetch from.
func TestNothingListensUnlessConfigured(t *testing.T) {
	srv := open(t, embedded.Config{}, ipfstest.NewMemory())
	n := open(t, embedded.Config{Listen: []string{}, Peers: srv.Addrs()}, ipfstest.NewMemory())
	waitConnected(t, n, srv.ID())
	if got := n.Addrs(); len(got) > 0 {
		t.Errorf("it listens on %v", got)
	}
}

// TestNoSecretsInLogs logs all that there is to log of a private network: what works, a peer of
// another network, one that is not there, blocks that are not, and a key that is none.
func TestNoSecretsInLogs(t *testing.T) {
	var mu sync.Mutex
	var logged bytes.Buffer
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &logged}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	dir := t.TempDir()
	secrets := map[string]string{}
	swarmKey := func(name, digits string) string {
		path, key := filepath.Join(dir, name), strings.Repeat(digits, 32)
		secrets[name] = key
		write(t, path, "/key/swarm/psk/1.0.0/\n/base16/\n"+key+"\n")
		return path
	}
	ours, others := swarmKey("ours", "a1"), swarmKey("others", "c2")
	keyFile := filepath.Join(dir, "identity.key")
	list := ipfstest.Blocks(t, 2, 1000)
	store := ipfstest.NewMemory()
	put(t, store, list[0])
	srv := open(t, embedded.Config{SwarmKey: ours, Logger: log}, store)
	other := open(t, embedded.Config{SwarmKey: others, Logger: log}, ipfstest.NewMemory())
	nobody := "/ip4/127.0.0.1/tcp/1/p2p/" + startHost(t).ID().String()
	cli := open(t, embedded.Config{SwarmKey: ours, KeyFile: keyFile, Logger: log, Timeout: time.Second,
		Peers: slices.Concat(srv.Addrs(), other.Addrs(), []string{nobody})}, ipfstest.NewMemory())
	waitConnected(t, cli, srv.ID())
	if _, err := cli.Get(t.Context(), list[0].Cid); err != nil {
		t.Fatal(err)
	}
	_, err := cli.Get(t.Context(), list[1].Cid)
	if !errors.Is(err, ipfs.ErrNotFound) {
		t.Errorf("a block that nobody has: %v", err)
	}
	bad := filepath.Join(dir, "bad")
	write(t, bad, secrets["ours"])
	_, openErr := embedded.Open(context.WithoutCancel(t.Context()), embedded.Config{SwarmKey: bad, Logger: log}, ipfstest.NewMemory())
	if openErr == nil {
		t.Error("a file that holds no swarm key was taken for one")
	}
	for what, secret := range privateKey(t, keyFile) {
		secrets[what] = secret
	}
	mu.Lock()
	text := logged.String() + err.Error() + fmt.Sprint(openErr)
	mu.Unlock()
	if !strings.Contains(text, "level=DEBUG") {
		t.Error("nothing was logged at level debug")
	}
	for what, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s is in the log", what)
		}
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	to *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.to.Write(b)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// privateKey returns the ways in which the seed of an identity might be written.
func privateKey(t *testing.T, path string) map[string]string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := crypto.UnmarshalPrivateKey(data)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := key.Raw()
	if err != nil {
		t.Fatal(err)
	}
	seed := raw[:32]
	return map[string]string{
		"identity, raw": string(seed), "identity in hex": hex.EncodeToString(seed),
		"identity in base64": base64.RawStdEncoding.EncodeToString(data)[:40],
		"identity in Go":     strings.Trim(fmt.Sprint(seed), "[]"),
	}
}
