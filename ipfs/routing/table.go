package routing

import (
	"errors"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	mh "github.com/multiformats/go-multihash"
)

const (
	// MaxTTL is for how long a record counts at most.
	MaxTTL = 30 * time.Minute
	// maxKeys is how many things a provider may have, and maxAddrs its addresses.
	maxKeys, maxAddrs = 4096, 16
	maxAddr           = 256 // bytes
	// maxProviders and maxRecords bound all.
	maxProviders, maxRecords = 4096, 1 << 18
	// maxFound is how many providers of one thing are told of.
	maxFound = 32
)

// ErrTooMany says that a provider has told of more than is kept for one.
var ErrTooMany = errors.New("too many records of one provider")

// A Table says who has what. The zero Table is empty and ready for use.
type Table struct {
	mu        sync.Mutex
	providers map[peer.ID]*provider
	byKey     map[string]map[peer.ID]struct{}
	records   int
}

// provider is one, with its records.
type provider struct {
	addrs []ma.Multiaddr
	keys  map[string]time.Time // until when
	until time.Time            // the last of them
	told  time.Time            // when its last record was made, by its clock
}

// Add notes that a provider has these things, for some time. Its addresses take the place of
// those before.
func (t *Table) Add(from peer.AddrInfo, keys []mh.Multihash, ttl time.Duration) error {
	now := time.Now()
	until := now.Add(min(ttl, MaxTTL))
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.provider(from.ID, now)
	p.addrs = nil
	for _, a := range from.Addrs {
		if a != nil && len(a.Bytes()) <= maxAddr && len(p.addrs) < maxAddrs {
			p.addrs = append(p.addrs, a)
		}
	}
	p.until = until
	for _, key := range keys {
		if err := t.add(from.ID, p, string(key), until); err != nil {
			return err
		}
	}
	return nil
}

// provider returns the entry of one, and makes room for a new one; the caller holds mu.
func (t *Table) provider(id peer.ID, now time.Time) *provider {
	if p, ok := t.providers[id]; ok {
		t.expire(id, p, now)
	}
	if p, ok := t.providers[id]; ok {
		return p
	}
	if len(t.providers) >= maxProviders {
		t.makeRoom(id)
	}
	if t.providers == nil {
		t.providers, t.byKey = map[peer.ID]*provider{}, map[string]map[peer.ID]struct{}{}
	}
	p := &provider{keys: map[string]time.Time{}}
	t.providers[id] = p
	return p
}

func (t *Table) add(id peer.ID, p *provider, key string, until time.Time) error {
	if _, there := p.keys[key]; !there {
		if len(p.keys) >= maxKeys {
			return ErrTooMany
		}
		if t.records >= maxRecords {
			t.makeRoom(id)
		}
		t.records++
		if t.byKey[key] == nil {
			t.byKey[key] = map[peer.ID]struct{}{}
		}
		t.byKey[key][id] = struct{}{}
	}
	p.keys[key] = until
	return nil
}

// makeRoom forgets the provider, other than one, whose records end first.
func (t *Table) makeRoom(but peer.ID) {
	var first peer.ID
	var until time.Time
	for id, p := range t.providers {
		if id != but && (first == "" || p.until.Before(until)) {
			first, until = id, p.until
		}
	}
	if p, ok := t.providers[first]; ok {
		for key := range p.keys {
			t.remove(first, p, key)
		}
		delete(t.providers, first)
	}
}

// expire forgets what is over of a provider.
func (t *Table) expire(id peer.ID, p *provider, now time.Time) {
	for key, until := range p.keys {
		if now.After(until) {
			t.remove(id, p, key)
		}
	}
	if len(p.keys) == 0 && now.After(p.told.Add(MaxTTL)) {
		delete(t.providers, id)
	}
}

func (t *Table) remove(id peer.ID, p *provider, key string) {
	delete(p.keys, key)
	t.records--
	if delete(t.byKey[key], id); len(t.byKey[key]) == 0 {
		delete(t.byKey, key)
	}
}

// Find returns providers of something, in no order.
func (t *Table) Find(key mh.Multihash) []peer.AddrInfo {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []peer.AddrInfo
	for id := range t.byKey[string(key)] {
		p := t.providers[id]
		if now.After(p.keys[string(key)]) {
			t.remove(id, p, string(key))
			continue
		}
		if len(found) < maxFound {
			found = append(found, peer.AddrInfo{ID: id, Addrs: p.addrs})
		}
	}
	return found
}

// isNews says whether a record was made no earlier than all others of its provider, by its clock, and notes
// it: an old one that somebody repeats is none.
func (t *Table) isNews(id peer.ID, made time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.provider(id, time.Now())
	if made.Before(p.told) {
		return false
	}
	p.told = made
	return true
}

// Len returns how many records there are, some of which may be over.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.records
}
