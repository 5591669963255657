package kubo_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/ipfs/internal/dag/dagtest"
	"github.com/hinshun/ipcs/ipfs/ipfstest"
	"github.com/hinshun/ipcs/ipfs/kubo"
)

// full is a node that can do all that a handler may ask of one.
type full struct {
	*ipfstest.Memory
	stat    kubo.RepoStat
	garbage []cid.Cid
	broken  error // of CollectGarbage, after it has removed what is garbage
}

func (f full) RepoStat() kubo.RepoStat { return f.stat }

func (f full) CollectGarbage(_ context.Context, removed func(cid.Cid)) error {
	for _, c := range f.garbage {
		removed(c)
	}
	return f.broken
}

func TestRepo(t *testing.T) {
	garbage := ipfstest.Cids(ipfstest.Blocks(t, 2, 10))
	node := full{ipfstest.NewMemory(), kubo.RepoStat{Bytes: 12345, Objects: 7, Path: "/repo", Version: "v"}, garbage, nil}
	limited := node
	limited.stat.Limit = 1 << 40
	gone := fmt.Sprintf(`{"Key":{"/":"%s"}}`+"\n"+`{"Key":{"/":"%s"}}`, garbage[0], garbage[1])
	for _, test := range []struct {
		node          ipfs.Node
		command, want string
	}{
		{node, "repo/stat", `{"RepoSize":12345,"StorageMax":18446744073709551615,"NumObjects":7,"RepoPath":"/repo","Version":"v"}`},
		{limited, "repo/stat?size-only=true", `{"RepoSize":12345,"StorageMax":1099511627776,"NumObjects":0,"RepoPath":"","Version":""}`},
		{node, "repo/gc", gone},
		{node, "repo/gc?silent=true", ""},
		{full{Memory: ipfstest.NewMemory()}, "repo/gc", ""},
		{full{Memory: ipfstest.NewMemory(), broken: errors.New("broken")}, "repo/gc", `{"Message":"broken","Code":0,"Type":"error"}`},
	} {
		rec := call(t, test.node, test.command, nil)
		if got := strings.TrimSpace(rec.Body.String()); got != test.want {
			t.Errorf("%s = %s\nwant %s", test.command, got, test.want)
		}
	}
	for _, command := range []string{"repo/stat", "repo/gc"} {
		if rec := call(t, ipfstest.NewMemory(), command, nil); rec.Code != http.StatusNotFound {
			t.Errorf("%s of a node without: %d", command, rec.Code)
		}
	}
	node.broken = errors.New("broken")
	server := httptest.NewServer(kubo.NewHandler(node, identity{}, nil))
	defer server.Close()
	resp, err := server.Client().Post(server.URL+"/api/v0/repo/gc", "", nil)
	if err != nil {
		return // broken off before anything came
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("a collection that failed in the middle looks whole: %s", text)
	}
}

// dialled is an identity that can connect to one address.
type dialled struct {
	identity
	to string
}

func (d dialled) Connect(_ context.Context, addr string) error {
	if addr != d.to {
		return errors.New("nobody is there")
	}
	return nil
}

func TestSwarmConnect(t *testing.T) {
	addr := "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWPeer"
	h := kubo.NewHandler(ipfstest.NewMemory(), dialled{to: addr}, nil)
	for query, want := range map[string]string{
		"arg=" + addr:                     `{"Strings":["connect 12D3KooWPeer success"]}`,
		"arg=" + addr + "&arg=" + addr:    `{"Strings":["connect 12D3KooWPeer success","connect 12D3KooWPeer success"]}`,
		"arg=/ip4/127.0.0.1/tcp/1/p2p/12": `{"Message":"connect 12 failure: nobody is there","Code":0,"Type":"error"}`,
		strings.Repeat("arg=a&", 1025):    `{"Message":"more than 1024 arguments","Code":1,"Type":"error"}`,
		"":                                `{"Message":"argument \"address\" is required","Code":1,"Type":"error"}`,
	} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/api/v0/swarm/connect?"+query, nil))
		if got := strings.TrimSpace(rec.Body.String()); got != want {
			t.Errorf("%s: %s\nwant %s", query, got, want)
		}
	}
	if rec := call(t, ipfstest.NewMemory(), "swarm/connect?arg="+addr, nil); rec.Code != http.StatusNotFound {
		t.Errorf("a node that cannot: %d", rec.Code)
	}
}

// ed25519 is who this ID and key are of, as Kubo tells them.
type ed25519 struct{ identity }

func (ed25519) ID() string { return "12D3KooWLbXXbd8Xcq5YMQEaJJbZyknFrW5SaydCM37BxN3g8b9m" }

func TestPublicKey(t *testing.T) {
	rec := httptest.NewRecorder()
	kubo.NewHandler(ipfstest.NewMemory(), ed25519{}, nil).ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/api/v0/id?arg="+ed25519{}.ID(), nil))
	if !strings.Contains(rec.Body.String(), `"PublicKey":"CAESIKAmlqpjHiRkZ267TWotchYGQyX6uAb1U6qHaCys8mNM"`) {
		t.Error(rec.Body)
	}
}

// TestPinGetsAll pins what is elsewhere, and does not pin what cannot be had as a whole.
func TestPinGetsAll(t *testing.T) {
	there := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, there))
	pinned := func(node ipfs.Node) int {
		t.Helper()
		pins, err := node.Pins(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return len(pins)
	}
	here := ipfstest.NewMemory()
	here.Connect(there)
	if rec := call(t, here, "pin/add?offline=true&arg="+root.String(), nil); rec.Code == http.StatusOK || pinned(here) != 0 || here.Len() != 0 {
		t.Errorf("offline: %d %s", rec.Code, rec.Body)
	}
	if rec := call(t, here, "pin/add?arg="+root.String(), nil); rec.Code != http.StatusOK || pinned(here) != 1 || here.Len() != there.Len() {
		t.Errorf("%d %s, %d blocks of %d", rec.Code, rec.Body, here.Len(), there.Len())
	}
	there.Remove(files["n42"])
	for command, want := range map[string]string{
		"pin/add?arg=" + root.String():             "could not find " + files["n42"].String(),
		"pin/add?name=again&arg=" + root.String():  "could not find " + files["n42"].String(),
		"pin/add?arg=" + root.String() + "/absent": "no such path",
	} {
		node := ipfstest.NewMemory()
		node.Connect(there)
		if rec := call(t, node, command, nil); rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), want) || pinned(node) != 0 {
			t.Errorf("%s: %d %s, %d pins; want %q", command, rec.Code, rec.Body, pinned(node), want)
		}
	}
	// What its caller says to have put is not looked for.
	node := ipfstest.NewMemory()
	data, err := there.Get(t.Context(), root)
	if err == nil {
		err = node.Put(t.Context(), ipfs.Block{Cid: root, Data: data})
	}
	if err != nil {
		t.Fatal(err)
	}
	if rec := call(t, node, "pin/add?ipcs-complete=true&arg="+root.String(), nil); rec.Code != http.StatusOK || pinned(node) != 1 {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	// An import tells of each root whether it could be pinned, and asks no peers.
	node = ipfstest.NewMemory()
	node.Connect(there)
	rec := call(t, node, "dag/import", car(t, ipfs.Block{Cid: root, Data: data}))
	if rec.Code != http.StatusOK || !strings.Contains(rec.Body.String(), "could not find") || pinned(node) != 0 || node.Len() != 1 {
		t.Errorf("import of a part: %d %s, %d blocks", rec.Code, rec.Body, node.Len())
	}
}

// forgetful loses a block while it is pinned.
type forgetful struct {
	*ipfstest.Memory
	lose cid.Cid
}

func (f forgetful) Pin(ctx context.Context, p ipfs.Pin) error {
	f.Remove(f.lose)
	return f.Memory.Pin(ctx, p)
}

// TestPinLooksTwice does not leave a pin of something that went until the pin was made, unless it was
// pinned before.
func TestPinLooksTwice(t *testing.T) {
	node := ipfstest.NewMemory()
	root, files := tree(dagtest.New(t, node))
	other := ipfs.Pin{Root: root, Name: "other"}
	if err := node.Pin(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	losing := forgetful{node, files["n42"]}
	if rec := call(t, losing, "pin/add?arg="+root.String(), nil); rec.Code != http.StatusInternalServerError || !strings.Contains(rec.Body.String(), "could not find") {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if pins, err := node.Pins(t.Context(), ""); err != nil || len(pins) != 1 || pins[0] != other {
		t.Errorf("pins: %v, %v", pins, err)
	}
	dagtest.New(t, node).Raw("42")
	if rec := call(t, losing, "pin/add?name=other&arg="+root.String(), nil); rec.Code != http.StatusInternalServerError {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	if pins, err := node.Pins(t.Context(), ""); err != nil || len(pins) != 1 {
		t.Errorf("a pin of before is gone: %v, %v", pins, err)
	}
}
