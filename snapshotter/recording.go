//go:build linux

package snapshotter

import (
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// openLate is how much later than its first reads it may be told that a file was opened.
const openLate = time.Second

// A recording is that of one container: a profile that grows.
//
// A large file of which something is missing when it is opened is read through us until it is
// closed, so its leaves are named as they are read, in place of the file. What of it was here
// then is named too: the kernel may have that in its memory, and then nobody sees who reads
// it. Such a file stays one of which leaves are named: who opens it again when all is here reads
// unseen, but has the profile of those before.
type recording struct {
	candidate
	window  time.Duration // 0: as long as it takes
	stopped chan struct{} // closed by cancel
	cancel  func()

	mu     sync.Mutex
	lazy   bool // only reads tell what is opened
	full   bool // the time is up
	timer  *time.Timer
	seen   map[cid.Cid]struct{} // files that were opened, and leaves that are named
	partly map[cid.Cid]struct{} // files whose leaves are named
	early  map[cid.Cid]*earlyReads
	files  []cid.Cid // and leaves
	closed bool
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
		seen: make(map[cid.Cid]struct{}), partly: make(map[cid.Cid]struct{}), early: make(map[cid.Cid]*earlyReads),
	}
}

// takeReads has it take what is read as opened: nobody tells it what is.
func (rec *recording) takeReads() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.lazy = true
}

// opened takes a file that was opened.
func (rec *recording) opened(c cid.Cid) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if _, ok := rec.seen[c]; ok || rec.closed {
		return
	}
	f, ok := rec.find(c)
	if !ok || f.NumLeaves() <= fetch.SmallFile {
		rec.add(c)
		return
	}
	here, all := rec.here(f)
	if all {
		rec.add(c)
		return
	}
	rec.seen[c], rec.partly[c] = struct{}{}, struct{}{}
	rec.begin()
	rec.addLeaves(f, here)
	if early := rec.early[c]; early != nil && time.Since(early.last) < openLate {
		rec.addLeaves(f, early.leaves)
	}
	delete(rec.early, c)
}

// read takes a read through us.
func (rec *recording) read(f ipfs.File, off, size int64) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	large := f.NumLeaves() > fetch.SmallFile
	if rec.closed || !large && !rec.lazy {
		return
	}
	if _, ok := rec.find(f.Cid); !ok {
		return
	}
	if !large {
		rec.add(f.Cid)
		return
	}
	var leaves []int
	for i := off / ipfs.LeafSize; i <= (off+size-1)/ipfs.LeafSize; i++ {
		leaves = append(leaves, int(i))
	}
	_, partly := rec.partly[f.Cid]
	_, seen := rec.seen[f.Cid]
	switch {
	case partly || rec.lazy:
		rec.addLeaves(f, leaves)
	case !seen:
		rec.readEarly(f, leaves)
	}
}

// readEarly keeps what is read of a file that may have been opened just now.
func (rec *recording) readEarly(f ipfs.File, leaves []int) {
	now := time.Now()
	early := rec.early[f.Cid]
	if early == nil || now.Sub(early.last) >= openLate {
		early = &earlyReads{}
		rec.early[f.Cid] = early
	}
	early.last = now
	if len(early.leaves) < layer.MaxProfile {
		early.leaves = append(early.leaves, leaves...)
	}
}

func (rec *recording) addLeaves(f ipfs.File, leaves []int) {
	for _, i := range leaves {
		rec.add(f.Leaf(i))
	}
}

// add names a file or a leaf.
func (rec *recording) add(c cid.Cid) {
	if _, ok := rec.seen[c]; ok || len(rec.files) == layer.MaxProfile {
		return
	}
	rec.seen[c] = struct{}{}
	rec.files = append(rec.files, c)
	rec.begin()
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
	return len(rec.files) > 0
}

// stop ends the recording and returns what there is of it.
func (rec *recording) stop() (files []cid.Cid, full bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.closed = true
	if rec.timer != nil {
		rec.timer.Stop()
	}
	return rec.files, rec.full
}
