package dht

import (
	"fmt"
	"testing"
	"time"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
	kadrecords "github.com/libp2p/go-libp2p-kad-dht/records"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
)

func write(t *testing.T, r *records, key, provider string) {
	t.Helper()
	if err := r.Put(t.Context(), ds.NewKey(join(key, provider)), []byte("when")); err != nil {
		t.Fatal(err)
	}
}

func keysOf(t *testing.T, r *records, prefix string) map[string]bool {
	t.Helper()
	res, err := r.Query(t.Context(), query.Query{Prefix: prefix})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := res.Rest()
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	for _, e := range entries {
		keys[e.Key] = true
	}
	return keys
}

// TestRecordsAreBounded writes more than there is room for: of a key, of a provider, and of all.
func TestRecordsAreBounded(t *testing.T) {
	r := newRecords()
	for i := range 1000 {
		write(t, r, "LAYER", fmt.Sprint("P", i))
	}
	got := keysOf(t, r, "/providers/LAYER")
	if len(got) != providersOfKey || !got[join("LAYER", "P999")] || got[join("LAYER", "P0")] {
		t.Errorf("%d providers of a key, want the last %d", len(got), providersOfKey)
	}
	for i := range keysOfProvider + 1000 {
		write(t, r, fmt.Sprint("K", i), "GREEDY")
	}
	if r.of["GREEDY"] != keysOfProvider {
		t.Errorf("%d records of a provider, want %d", r.of["GREEDY"], keysOfProvider)
	}
	write(t, r, "K0", "GREEDY") // told again, it is the last
	for i := range maxRecords + 1000 {
		write(t, r, fmt.Sprint("M", i), fmt.Sprint("Q", i%100))
		write(t, r, "LAYER", "HONEST")
	}
	all := keysOf(t, r, "/providers")
	if len(all) > maxRecords || len(all) != r.all || !all[join("LAYER", "HONEST")] {
		t.Errorf("%d records, %d are counted, of at most %d", len(all), r.all, maxRecords)
	}
	count := 0
	for _, n := range r.of {
		count += n
	}
	if count != r.all {
		t.Errorf("%d are counted of providers, %d in all", count, r.all)
	}
}

func TestRecords(t *testing.T) {
	r := newRecords()
	write(t, r, "A", "P")
	write(t, r, "AB", "P") // A is no prefix of it
	if got := keysOf(t, r, "/providers/A"); len(got) != 1 {
		t.Errorf("of A: %v", got)
	}
	key := ds.NewKey(join("A", "P"))
	if v, err := r.Get(t.Context(), key); err != nil || string(v) != "when" {
		t.Errorf("%q, %v", v, err)
	}
	for range 2 {
		if err := r.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Get(t.Context(), key); err != ds.ErrNotFound {
		t.Errorf("after it was deleted: %v", err)
	}
	if err := r.Put(t.Context(), ds.NewKey("/pk/x"), nil); err == nil {
		t.Error("it keeps what is no record of a provider")
	}
}

// TestProviderManagerOnRecords has kad-dht's own manager keep providers in it, as the DHT does: they are found, and a flood
// of them is bounded.
func TestProviderManagerOnRecords(t *testing.T) {
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		t.Fatal(err)
	}
	defer ps.Close()
	r := newRecords()
	m, err := kadrecords.NewProviderManager("self", ps, r, kadrecords.Cache(noCache{}), kadrecords.ProvideValidity(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	id := func(i int) peer.ID { return peer.ID(append([]byte{0x12, 32}, fmt.Appendf(nil, "%032d", i)...)) }
	for i := range 10_000 {
		if err := m.AddProvider(t.Context(), []byte("layer"), peer.AddrInfo{ID: id(i)}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if got, err := m.GetProviders(t.Context(), []byte("layer")); err != nil || len(got) != 1 || got[0].ID != id(0) {
				t.Errorf("the first: %v, %v", got, err)
			}
		}
	}
	got, err := m.GetProviders(t.Context(), []byte("layer"))
	if err != nil || len(got) < providersOfKey || len(got) > providersOfKey+256 { // what is not written yet comes with it
		t.Errorf("%d providers are told of, %v", len(got), err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if len(r.byKey) != 1 || r.all != providersOfKey {
		t.Errorf("%d are kept", r.all)
	}
}
