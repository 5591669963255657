package dht

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

const (
	// providersOfKey of one thing are kept, the last that told of it, and keysOfProvider of one provider, the first.
	providersOfKey, keysOfProvider = 32, 4096
	// maxRecords are kept in all, each of some 250 bytes. Beyond, a quarter goes: what was told first.
	maxRecords = 1 << 16
)

var errNoRecord = errors.New("the key is none of a provider's record")

var _ ds.Batching = (*records)(nil)

// records is a datastore in memory with room for a bounded number of records of providers, whose keys are
// /providers/KEY/PROVIDER. What there is no room for is dropped without an error: the DHT would
// keep it to try again.
type records struct {
	mu    sync.Mutex
	byKey map[string]map[string]record // by key, then by provider
	of    map[string]int               // how many there are of a provider
	all   int
	last  uint64
}

type record struct {
	value []byte
	order uint64 // of writing
}

func newRecords() *records {
	return &records{byKey: map[string]map[string]record{}, of: map[string]int{}}
}

// parse returns key and provider.
func parse(k ds.Key) (key, provider string, err error) {
	parts := strings.Split(k.String(), "/")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "providers" {
		return "", "", errNoRecord
	}
	return parts[2], parts[3], nil
}

func join(key, provider string) string { return "/providers/" + key + "/" + provider }

// Put implements ds.Write.
func (r *records) Put(_ context.Context, k ds.Key, value []byte) error {
	key, provider, err := parse(k)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	of := r.byKey[key]
	if _, there := of[provider]; !there {
		if r.of[provider] >= keysOfProvider {
			return nil
		}
		if r.all >= maxRecords {
			r.makeRoom()
		}
		if len(r.byKey[key]) >= providersOfKey {
			r.remove(key, first(r.byKey[key]))
		}
		if r.byKey[key] == nil {
			r.byKey[key] = map[string]record{}
		}
		r.of[provider]++
		r.all++
	}
	r.last++
	r.byKey[key][provider] = record{slices.Clone(value), r.last}
	return nil
}

// first returns the provider that told first of one key.
func first(of map[string]record) (provider string) {
	for p, rec := range of {
		if provider == "" || rec.order < of[provider].order {
			provider = p
		}
	}
	return provider
}

// makeRoom removes a quarter of all; the caller holds mu.
func (r *records) makeRoom() {
	type entry struct {
		key, provider string
		order         uint64
	}
	entries := make([]entry, 0, r.all)
	for key, of := range r.byKey {
		for provider, rec := range of {
			entries = append(entries, entry{key, provider, rec.order})
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.order, b.order) })
	for _, e := range entries[:len(entries)/4] {
		r.remove(e.key, e.provider)
	}
}

// remove removes a record, if it is there; the caller holds mu.
func (r *records) remove(key, provider string) {
	of := r.byKey[key]
	if _, there := of[provider]; !there {
		return
	}
	if delete(of, provider); len(of) == 0 {
		delete(r.byKey, key)
	}
	if r.of[provider]--; r.of[provider] == 0 {
		delete(r.of, provider)
	}
	r.all--
}

// Delete implements ds.Write.
func (r *records) Delete(_ context.Context, k ds.Key) error {
	key, provider, err := parse(k)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remove(key, provider)
	return nil
}

// Get implements ds.Read.
func (r *records) Get(_ context.Context, k ds.Key) ([]byte, error) {
	key, provider, err := parse(k)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.byKey[key][provider]
	if !ok {
		return nil, ds.ErrNotFound
	}
	return slices.Clone(rec.value), nil
}

// Has implements ds.Read.
func (r *records) Has(ctx context.Context, k ds.Key) (bool, error) { return ds.GetBackedHas(ctx, r, k) }

// GetSize implements ds.Read.
func (r *records) GetSize(ctx context.Context, k ds.Key) (int, error) {
	return ds.GetBackedSize(ctx, r, k)
}

// Query implements ds.Read. It looks at nothing but the prefix, which is all that the DHT sets: all records, or those
// of one key.
func (r *records) Query(_ context.Context, q query.Query) (query.Results, error) {
	key := strings.Trim(strings.TrimPrefix(q.Prefix, "/providers"), "/")
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := map[string]map[string]record{key: r.byKey[key]}
	if key == "" {
		keys = r.byKey
	}
	var entries []query.Entry
	for key, of := range keys {
		for provider, rec := range of {
			entries = append(entries, query.Entry{Key: join(key, provider), Value: slices.Clone(rec.value), Size: len(rec.value)})
		}
	}
	return query.ResultsWithEntries(q, entries), nil
}

// Sync implements ds.Datastore.
func (*records) Sync(context.Context, ds.Key) error { return nil }

// Close implements ds.Datastore.
func (*records) Close() error { return nil }

// Batch implements ds.Batching.
func (r *records) Batch(context.Context) (ds.Batch, error) { return ds.NewBasicBatch(r), nil }

// noCache is an LRU cache that is always empty: the DHT's would hold any number of providers of a key.
type noCache struct{}

// Add keeps nothing.
func (noCache) Add(_, _ any) bool { return false }

// Get has nothing; so it is with the others.
func (noCache) Get(any) (any, bool)            { return nil, false }
func (noCache) Contains(any) bool              { return false }
func (noCache) Peek(any) (any, bool)           { return nil, false }
func (noCache) Remove(any) bool                { return false }
func (noCache) RemoveOldest() (any, any, bool) { return nil, nil, false }
func (noCache) GetOldest() (any, any, bool)    { return nil, nil, false }
func (noCache) Keys() []any                    { return nil }
func (noCache) Len() int                       { return 0 }
func (noCache) Purge()                         {}
func (noCache) Resize(int) int                 { return 0 }
