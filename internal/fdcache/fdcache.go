// Package fdcache keeps a bounded number of files open for whoever reads the same
// ones again and again.
//
// Entries are counted: a file that falls out of the cache, by age or by Drop, is
// closed when its last user has released it, never under a reader. Files in use
// therefore may exceed the bound for a moment; idle ones never do. Opening happens
// outside the lock, so one slow disk does not stop all readers; two that open the
// same file at once keep the first.
package fdcache

import (
	"container/list"
	"os"
	"sync"
	"syscall"
)

// A Cache holds open files by key. It is safe for concurrent use.
type Cache[K comparable] struct {
	limit int

	mu      sync.Mutex
	entries map[K]*list.Element // of *Handle[K]
	recent  *list.List          // most recently used first
}

// A Handle is the use of an open file. Release must be called once for each Acquire.
type Handle[K comparable] struct {
	cache *Cache[K]
	key   K
	file  *os.File
	refs  int  // guarded by cache.mu; the cache itself is not counted
	out   bool // no longer in the cache: close with the last reference
}

// New returns a cache that keeps at most limit files open.
func New[K comparable](limit int) *Cache[K] {
	return &Cache[K]{limit: limit, entries: make(map[K]*list.Element), recent: list.New()}
}

// Acquire returns the open file for key, calling open if there is none.
func (c *Cache[K]) Acquire(key K, open func() (*os.File, error)) (*Handle[K], error) {
	if h := c.lookup(key); h != nil {
		return h, nil
	}
	file, err := open()
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if h := c.lookupLocked(key); h != nil {
		c.mu.Unlock()
		closeAll([]*os.File{file}) // another was first
		return h, nil
	}
	h := &Handle[K]{cache: c, key: key, file: file, refs: 1}
	c.entries[key] = c.recent.PushFront(h)
	stale := c.evictLocked()
	c.mu.Unlock()
	closeAll(stale)
	return h, nil
}

// File returns the open file. It must not be closed, nor used after Release.
func (h *Handle[K]) File() *os.File { return h.file }

// Release ends the use of the file.
func (h *Handle[K]) Release() {
	c := h.cache
	c.mu.Lock()
	h.refs--
	last := h.out && h.refs == 0
	c.mu.Unlock()
	if last {
		closeAll([]*os.File{h.file})
	}
}

// Drop forgets the file of key, if there is one, and closes it when nobody uses it.
func (c *Cache[K]) Drop(key K) {
	c.mu.Lock()
	var stale []*os.File
	if e, ok := c.entries[key]; ok {
		stale = c.removeLocked(e)
	}
	c.mu.Unlock()
	closeAll(stale)
}

// DropRemoved drops the files that have been removed from their file system: it gets the space
// back when nobody uses them.
func (c *Cache[K]) DropRemoved() {
	c.mu.Lock()
	var stale []*os.File
	for _, e := range c.entries {
		info, err := e.Value.(*Handle[K]).file.Stat()
		if err != nil {
			continue
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 0 {
			stale = append(stale, c.removeLocked(e)...)
		}
	}
	c.mu.Unlock()
	closeAll(stale)
}

// Close drops all files. The cache stays usable.
func (c *Cache[K]) Close() {
	c.mu.Lock()
	var stale []*os.File
	for _, e := range c.entries {
		stale = append(stale, c.removeLocked(e)...)
	}
	c.mu.Unlock()
	closeAll(stale)
}

// Len returns the number of files in the cache.
func (c *Cache[K]) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

func (c *Cache[K]) lookup(key K) *Handle[K] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lookupLocked(key)
}

func (c *Cache[K]) lookupLocked(key K) *Handle[K] {
	e, ok := c.entries[key]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(e)
	h := e.Value.(*Handle[K])
	h.refs++
	return h
}

// evictLocked takes the oldest entries out until the bound is met, and returns the
// files that nobody uses.
func (c *Cache[K]) evictLocked() []*os.File {
	var stale []*os.File
	for len(c.entries) > c.limit {
		stale = append(stale, c.removeLocked(c.recent.Back())...)
	}
	return stale
}

func (c *Cache[K]) removeLocked(e *list.Element) []*os.File {
	h := c.recent.Remove(e).(*Handle[K])
	delete(c.entries, h.key)
	h.out = true
	if h.refs == 0 {
		return []*os.File{h.file}
	}
	return nil
}

// closeAll closes files whose data was checked when it was written: what close
// would report (a late write error) is found again by the hash.
func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
