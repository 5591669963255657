//go:build linux

package snapshotter

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

const (
	// openLate is how much later than its first reads it may be told that a file was opened.
	openLate = time.Second
	// maxEarly is how many files, and leaves of each, are kept until then.
	maxEarly = 64
	// maxNamed leaves of a file are named, or seven eighths of it; beyond, the file is.
	maxNamed = 4096
)

// A recording is that of one container: a profile that grows.
//
// A large file of which something is missing when it is opened is read through us until it is
// closed, so its leaves are named as they are read, in place of the file. What of it was read
// before then is named too: the kernel may have that in its memory, and then nobody sees who reads
// it. Such a file stays one of which leaves are named, until these are most of it: who opens it again
// when all is here reads unseen, but has the profile of those before. If no leaf was seen at all, as
// when the kernel has what an earlier process has fetched, the file is named.
type recording struct {
	candidate
	window  time.Duration // 0: as long as it takes
	stopped chan struct{} // closed by cancel
	cancel  func()
	lazy    atomic.Bool // only reads tell what is opened

	mu     sync.Mutex
	full   bool // the time is up
	timer  *time.Timer
	seen   map[cid.Cid]struct{} // what is named
	partly map[cid.Cid]*partFile
	early  map[cid.Cid]*earlyReads
	files  []cid.Cid // and leaves
	closed bool
}

// partFile is a file whose leaves are named.
type partFile struct {
	ipfs.File
	leaves []int
}

// earlyReads are of a file of which it was not told yet that it was opened.
type earlyReads struct {
	leaves []int
	last   time.Time
}

func newRecording(c candidate, window time.Duration) *recording {
	stopped := make(chan struct{})
	return &recording{
		candidate: c, window: window, stopped: stopped, cancel: sync.OnceFunc(func() { close(stopped) }),
		seen: make(map[cid.Cid]struct{}), partly: make(map[cid.Cid]*partFile), early: make(map[cid.Cid]*earlyReads),
	}
}

// takeReads has it take what is read as opened: nobody tells it what is.
func (rec *recording) takeReads() { rec.lazy.Store(true) }

// knows says whether it was told of a file before.
func (rec *recording) knows(c cid.Cid) bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	_, seen := rec.seen[c]
	return seen || rec.partly[c] != nil || rec.closed
}

// opened takes a file that was opened.
func (rec *recording) opened(c cid.Cid) {
	if rec.knows(c) {
		return
	}
	f, ok := rec.find(c)
	var read []int
	all := true
	if ok && f.NumLeaves() > fetch.SmallFile {
		read, all = rec.here(f)
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	switch {
	case rec.closed:
	case all:
		rec.add(c)
	case rec.partly[c] == nil:
		rec.partly[c] = &partFile{File: f}
		rec.begin()
		rec.addLeaves(rec.partly[c], read)
		if early := rec.early[c]; early != nil && time.Since(early.last) < openLate {
			rec.addLeaves(rec.partly[c], early.leaves)
		}
		delete(rec.early, c)
	}
}

// read takes a read through us.
func (rec *recording) read(f ipfs.File, off, size int64) {
	lazy := rec.lazy.Load()
	if f.NumLeaves() <= fetch.SmallFile && !lazy {
		return
	}
	var leaves []int
	for i := off / ipfs.LeafSize; i <= (off+size-1)/ipfs.LeafSize; i++ {
		leaves = append(leaves, int(i))
	}
	if rec.readKnown(f.Cid, leaves) {
		return
	}
	if _, ok := rec.find(f.Cid); !ok {
		return
	}
	if lazy {
		rec.opened(f.Cid)
		rec.readKnown(f.Cid, leaves)
		return
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.readEarly(f.Cid, leaves)
}

// readKnown takes a read of a file that it was told of, and says whether it was.
func (rec *recording) readKnown(c cid.Cid, leaves []int) bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	p := rec.partly[c]
	if p != nil && !rec.closed {
		rec.addLeaves(p, leaves)
	}
	_, seen := rec.seen[c]
	return p != nil || seen || rec.closed
}

// readEarly keeps what is read of a file that may have been opened just now.
func (rec *recording) readEarly(c cid.Cid, leaves []int) {
	now := time.Now()
	early := rec.early[c]
	if early == nil || now.Sub(early.last) >= openLate {
		if early == nil && len(rec.early) >= maxEarly {
			clear(rec.early) // of containers that are not recorded
		}
		early = &earlyReads{}
		rec.early[c] = early
	}
	early.last = now
	for _, i := range leaves {
		if len(early.leaves) < maxEarly && !slices.Contains(early.leaves, i) {
			early.leaves = append(early.leaves, i)
		}
	}
}

// addLeaves names leaves of a file, or all of it if that is not much more.
func (rec *recording) addLeaves(p *partFile, leaves []int) {
	for _, i := range leaves {
		if _, whole := rec.seen[p.Cid]; whole {
			return
		}
		if rec.add(p.Leaf(i)) {
			p.leaves = append(p.leaves, i)
		}
		if n := p.NumLeaves(); len(p.leaves) > min(n-n/8, maxNamed) {
			rec.nameWhole(p)
		}
	}
}

// nameWhole names a file in place of its leaves, where the first of them is.
func (rec *recording) nameWhole(p *partFile) {
	named := make(map[cid.Cid]struct{}, len(p.leaves))
	for _, i := range p.leaves {
		named[p.Leaf(i)] = struct{}{}
	}
	is := func(c cid.Cid) bool { _, ok := named[c]; return ok }
	if at := slices.IndexFunc(rec.files, is); at >= 0 {
		rec.files[at] = p.Cid
	}
	rec.files = slices.DeleteFunc(rec.files, is)
	rec.seen[p.Cid] = struct{}{}
	p.leaves = nil
}

// add names a file or a leaf, and says whether it was not named before.
func (rec *recording) add(c cid.Cid) bool {
	if _, ok := rec.seen[c]; ok || len(rec.files) == layer.MaxProfile {
		return false
	}
	rec.seen[c] = struct{}{}
	rec.files = append(rec.files, c)
	rec.begin()
	return true
}

// begin begins the time with the first file.
func (rec *recording) begin() {
	if rec.timer != nil || rec.window <= 0 {
		return
	}
	rec.timer = time.AfterFunc(rec.window, func() {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		rec.full = true
		rec.cancel()
	})
}

// begun says whether anything was opened.
func (rec *recording) begun() bool {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return len(rec.files)+len(rec.partly) > 0
}

// stop ends the recording and returns what there is of it.
func (rec *recording) stop() (files []cid.Cid, full bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.closed = true
	if rec.timer != nil {
		rec.timer.Stop()
	}
	for c, p := range rec.partly {
		if len(p.leaves) == 0 {
			rec.add(c)
		}
	}
	return rec.files, rec.full
}
