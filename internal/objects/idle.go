package objects

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"
)

// Of a file that is read in part only, as of large libraries, the leaves that came stay in a
// partial file for as long as the process runs. They count for the limit as objects do, and
// go as they do when nobody used them for longest: then the Partial is empty again.

// idleTime is how long a partial file must not have been used before it may go: who is about
// to read from it, or to write the next leaf, does not find it empty.
const idleTime = time.Minute

// maxEmptied bounds how often a leaf is written again because its file was emptied meanwhile.
const maxEmptied = 4

// partFiles are the Partials that have a file.
type partFiles struct {
	bytes atomic.Int64 // on disk

	mu  sync.Mutex
	all map[*Partial]struct{}
}

func (f *partFiles) add(p *Partial) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.all == nil {
		f.all = make(map[*Partial]struct{})
	}
	f.all[p] = struct{}{}
}

func (f *partFiles) remove(p *Partial) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.all, p)
}

// each calls fn with each Partial that has a file.
func (f *partFiles) each(fn func(*Partial)) {
	f.mu.Lock()
	list := make([]*Partial, 0, len(f.all))
	for p := range f.all {
		list = append(list, p)
	}
	f.mu.Unlock()
	for _, p := range list {
		fn(p)
	}
}

// partKey names one file of a Partial, in the cache of open files.
type partKey struct {
	partial *Partial
	round   int
}

// inUse says what there is of the file on disk, and when it was used last.
func (p *Partial) inUse() (bytes int64, used time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.bytes, p.used
}

// empty removes the file, unless it was used after the given time, and returns the bytes that
// it had on disk. Whoever has it open goes on to read what there was.
func (p *Partial) empty(unused time.Time) int64 {
	if !p.committing.TryLock() {
		return 0
	}
	defer p.committing.Unlock()
	p.mu.Lock()
	if p.state != partialWriting || p.used.After(unused) {
		p.mu.Unlock()
		return 0
	}
	key, path, bytes := partKey{p, p.round}, p.path, p.bytes
	p.state, p.path, p.count = partialNew, "", 0
	p.round++
	clear(p.have)
	p.forgetLocked()
	p.mu.Unlock()
	p.store.partials.Drop(key)
	if err := p.store.removeTemp(path); err != nil {
		p.store.log.Warn("cannot remove a partial file; it goes at the next start", "path", path, "error", err)
		return 0
	}
	return bytes
}

// forgetLocked counts the file no longer: it has become an object, or goes. It is called with
// p.mu.
func (p *Partial) forgetLocked() {
	p.store.parts.remove(p)
	p.store.parts.bytes.Add(-p.bytes)
	p.bytes = 0
}

// emptyPartials removes the partial files of these objects.
func (s *Store) emptyPartials(objects []cid.Cid) (freed int64) {
	named := make(map[cid.Cid]bool, len(objects))
	for _, c := range objects {
		named[c] = true
	}
	now := time.Now()
	s.parts.each(func(p *Partial) {
		if named[p.file.Cid] {
			freed += p.empty(now)
		}
	})
	return freed
}
