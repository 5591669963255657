package fetch

import (
	"time"

	"github.com/ipfs/go-cid"
)

// latencyBounds are the upper bounds of what Latency tells apart.
var latencyBounds = [...]time.Duration{
	500 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second,
	5 * time.Second, 10 * time.Second, 30 * time.Second,
}

// Latency counts waits by how long they were.
type Latency struct {
	Counts [len(latencyBounds) + 1]int64 // the last is of those beyond all bounds
	Sum    time.Duration
}

// Bounds returns the upper bounds of Counts, but for the last.
func (*Latency) Bounds() []time.Duration { return latencyBounds[:] }

func (l *Latency) add(d time.Duration) {
	i := 0
	for i < len(latencyBounds) && d > latencyBounds[i] {
		i++
	}
	l.Counts[i]++
	l.Sum += d
}

// Prefetched counts the files that Prefetch got at one priority before anybody waited for
// them, and those of them that were opened afterwards.
type Prefetched struct {
	Files, Bytes             int64
	OpenedFiles, OpenedBytes int64
}

// maxUnread bounds the prefetched files that are remembered until they are opened, of 80 bytes
// each. What is prefetched beyond is not counted.
const maxUnread = 1 << 19

// sum is the digest of a CID: all CIDs of files have one of this length.
type sum [32]byte

func sumOf(c cid.Cid) (s sum) {
	hash := c.Hash()
	copy(s[:], hash[max(0, len(hash)-len(s)):])
	return s
}

// unread is a file that was prefetched and not opened yet.
type unread struct {
	size     int64
	priority Priority
}

// prefetched counts a file that Prefetch has got, unless somebody waited for it meanwhile.
func (f *Fetcher) prefetched(st *file, p Priority) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if st.counted || !f.opens || p == ahead || len(f.unread) >= maxUnread {
		return
	}
	st.counted = true
	to := f.stats.prefetched(p)
	to.Files++
	to.Bytes += st.Size
	f.unread[sumOf(st.Cid)] = unread{st.Size, p}
}

// Opened says that somebody opened or read a file, which may be said again.
func (f *Fetcher) Opened(c cid.Cid) {
	if !f.opens {
		return
	}
	key := sumOf(c)
	f.mu.Lock()
	defer f.mu.Unlock()
	got, ok := f.unread[key]
	if !ok {
		return
	}
	delete(f.unread, key)
	to := f.stats.prefetched(got.priority)
	to.OpenedFiles++
	to.OpenedBytes += got.size
}

func (s *Stats) prefetched(p Priority) *Prefetched {
	if p == Profile {
		return &s.Profile
	}
	return &s.Fill
}
