package routing_test

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ipfs/boxo/routing/http/types"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"

	"github.com/hinshun/ipcs/ipfs/routing"
)

func root(t testing.TB, n int) cid.Cid {
	t.Helper()
	hash, err := mh.Sum(fmt.Append(nil, n), mh.SHA2_256, -1)
	if err != nil {
		t.Fatal(err)
	}
	return cid.NewCidV1(cid.DagProtobuf, hash)
}

func serve(t *testing.T, table *routing.Table, allowed func(id string) bool) string {
	t.Helper()
	s := httptest.NewServer(routing.NewHandler(table, allowed, slog.New(slog.DiscardHandler)))
	t.Cleanup(s.Close)
	return s.URL
}

func anybody(string) bool { return true }

func key(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	k, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

func newClient(t *testing.T, url, addr string) (*routing.Client, peer.ID) {
	t.Helper()
	k, id := key(t)
	c, err := routing.NewClient(url, k, func() []ma.Multiaddr { return []ma.Multiaddr{ma.StringCast(addr)} })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, id
}

// TestFindWhatWasAnnounced has two nodes tell a server of what they have, and a third find both.
func TestFindWhatWasAnnounced(t *testing.T) {
	url := serve(t, new(routing.Table), anybody)
	a, aID := newClient(t, url, "/ip4/10.0.0.1/tcp/4001")
	b, bID := newClient(t, url, "/ip4/10.0.0.2/tcp/4001")
	c, _ := newClient(t, url, "/ip4/10.0.0.3/tcp/4001")
	var many []cid.Cid
	for i := range 1200 { // more than one record has
		many = append(many, root(t, i))
	}
	if err := a.Announce(t.Context(), many, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := b.Announce(t.Context(), many[1199:], time.Minute); err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]map[peer.ID]string{
		0: {aID: "/ip4/10.0.0.1/tcp/4001"}, 1199: {aID: "/ip4/10.0.0.1/tcp/4001", bID: "/ip4/10.0.0.2/tcp/4001"}, 5000: {},
	} {
		found, err := c.Find(t.Context(), root(t, i))
		if err != nil || len(found) != len(want) {
			t.Errorf("providers of %d: %v, %v", i, found, err)
		}
		for _, p := range found {
			if len(p.Addrs) != 1 || p.Addrs[0].String() != want[p.ID] {
				t.Errorf("%s is at %v, want %s", p.ID, p.Addrs, want[p.ID])
			}
		}
	}
}

func TestOnlyAllowedAreTaken(t *testing.T) {
	var friend peer.ID
	table := new(routing.Table)
	url := serve(t, table, func(id string) bool { return id == friend.String() })
	a, id := newClient(t, url, "/ip4/10.0.0.1/tcp/4001")
	stranger, _ := newClient(t, url, "/ip4/10.0.0.2/tcp/4001")
	friend = id
	if err := a.Announce(t.Context(), []cid.Cid{root(t, 1)}, time.Minute); err != nil {
		t.Error(err)
	}
	if err := stranger.Announce(t.Context(), []cid.Cid{root(t, 1)}, time.Minute); err == nil {
		t.Error("a stranger's record was taken")
	}
	if n := table.Len(); n != 1 {
		t.Errorf("%d records", n)
	}
}

// TestHostileRecords are refused, and none ends the server.
func TestHostileRecords(t *testing.T) {
	table := new(routing.Table)
	url := serve(t, table, anybody)
	now := types.Time{Time: time.Now()}
	minute := types.Duration{Duration: time.Minute}
	for name, change := range map[string]func(k crypto.PrivKey, id *peer.ID, p *types.BitswapPayload) string{
		"NoTTL":  func(_ crypto.PrivKey, _ *peer.ID, p *types.BitswapPayload) string { p.AdvisoryTTL = nil; return "" },
		"NoTime": func(_ crypto.PrivKey, _ *peer.ID, p *types.BitswapPayload) string { p.Timestamp = nil; return "" },
		"Old": func(_ crypto.PrivKey, _ *peer.ID, p *types.BitswapPayload) string {
			p.Timestamp = &types.Time{Time: time.Now().Add(-2 * time.Hour)}
			return ""
		},
		"Future": func(_ crypto.PrivKey, _ *peer.ID, p *types.BitswapPayload) string {
			p.Timestamp = &types.Time{Time: time.Now().Add(2 * time.Hour)}
			return ""
		},
		"NoTimeLeft": func(_ crypto.PrivKey, _ *peer.ID, p *types.BitswapPayload) string {
			p.AdvisoryTTL = &types.Duration{Duration: -time.Minute}
			return ""
		},
		"Signature": func(crypto.PrivKey, *peer.ID, *types.BitswapPayload) string { return "mAAAA" },
	} {
		t.Run(name, func(t *testing.T) {
			k, id := key(t)
			//lint:ignore SA1019 see the package comment
			rec := types.WriteBitswapRecord{Protocol: "transport-bitswap", Schema: types.SchemaBitswap, Payload: types.BitswapPayload{
				Keys: []types.CID{{Cid: root(t, 1)}}, AdvisoryTTL: &minute, Timestamp: &now, ID: &id,
			}}
			forged := change(k, &id, &rec.Payload)
			if err := rec.Sign(id, k); err != nil {
				t.Fatal(err)
			}
			if forged != "" {
				rec.Signature = forged
			}
			body, err := json.Marshal(map[string]any{"Providers": []any{rec}})
			if err != nil {
				t.Fatal(err)
			}
			put(t, url, string(body))
		})
	}
	put(t, url, `{"Providers":[{"Schema":"peer","ID":"x"}]}`)
	put(t, url, strings.Repeat("[", 2<<20))
	put(t, url, `{"Providers":["`+strings.Repeat("a", 2<<20)+`"]}`)
	if n := table.Len(); n != 0 {
		t.Errorf("%d records were taken", n)
	}
}

// put has a body refused.
func put(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url+"/routing/v1/providers/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		t.Errorf("status %s", resp.Status)
	}
}

func TestTableLimits(t *testing.T) {
	var table routing.Table
	hash := func(i int) mh.Multihash { return root(t, i).Hash() }
	var keys []mh.Multihash
	for i := range 4097 {
		keys = append(keys, hash(i))
	}
	if err := table.Add(peer.AddrInfo{ID: "greedy"}, keys, time.Minute); err != routing.ErrTooMany || table.Len() != 4096 {
		t.Errorf("a provider has %d records, %v", table.Len(), err)
	}
	if err := table.Add(peer.AddrInfo{ID: "brief"}, keys[:1], time.Nanosecond); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond)
	if found := table.Find(hash(0)); len(found) != 1 || found[0].ID != "greedy" {
		t.Errorf("found %v, of which one is over", found)
	}
	for i := range 300 { // more records than there is room for: those that end first go
		id := peer.ID(fmt.Sprintf("one of many %d", i))
		if err := table.Add(peer.AddrInfo{ID: id}, keys[:1024], time.Minute+time.Duration(i)*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if n := table.Len(); n > 1<<18 {
		t.Errorf("%d records", n)
	}
	if found := table.Find(hash(4095)); len(found) != 0 {
		t.Errorf("the one that ends first is still there: %v", found)
	}
	if found := table.Find(hash(0)); len(found) != 32 {
		t.Errorf("found %d providers, at most 32 are told of", len(found))
	}
}

func TestBadServers(t *testing.T) {
	for _, url := range []string{"", "10.0.0.1:8181", "ftp://10.0.0.1", "http://", "http://10.0.0.1/other"} {
		if err := routing.CheckURL(url); err == nil || !strings.Contains(err.Error(), "an example") {
			t.Errorf("%q: %v", url, err)
		}
	}
	for _, url := range []string{"http://10.0.0.1:8181", "https://example.org/routing/v1"} {
		if err := routing.CheckURL(url); err != nil {
			t.Error(err)
		}
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/routing") {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}
	}))
	defer s.Close()
	c, _ := newClient(t, s.URL, "/ip4/10.0.0.1/tcp/4001")
	if _, err := c.Find(t.Context(), root(t, 1)); err == nil || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("a redirect: %v", err)
	}
}

// FuzzAnswers gives a client whatever a server might answer.
func FuzzAnswers(f *testing.F) {
	f.Add("application/json", []byte(`{"Providers":[{"Schema":"peer","ID":"12D3KooWKAAkJfJgxpnpVBpQsMXQDtcyBEYQhT3WGYZjQVNtkGuK","Addrs":["/ip4/10.0.0.1/tcp/1"]}]}`))
	f.Add("application/x-ndjson", []byte(`{"Schema":"bitswap","ID":null}`))
	f.Add("application/json", []byte(`{"Providers":[null]}`))
	f.Add("text/html", []byte(`<html>`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{contentType}
			_, _ = w.Write(body)
		}))
		defer s.Close()
		c, _ := newClient(t, s.URL, "/ip4/10.0.0.1/tcp/4001")
		found, _ := c.Find(t.Context(), root(t, 1))
		if len(found) > 32 {
			t.Errorf("%d providers", len(found))
		}
	})
}
