package fdcache_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hinshun/ipcs/internal/fdcache"
)

func TestFilesAreClosedAfterTheirLastUse(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) func() (*os.File, error) {
		return func() (*os.File, error) { return os.Create(filepath.Join(dir, name)) }
	}
	c := fdcache.New[string](1)
	a, err := c.Acquire("a", open("a"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Acquire("b", open("b")) // pushes a out while it is in use
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.File().Stat(); err != nil {
		t.Fatalf("a was closed under its user: %v", err)
	}
	file := a.File()
	a.Release()
	if _, err := file.Stat(); err == nil {
		t.Fatal("a stays open though nobody uses it and it is out of the cache")
	}
	again, err := c.Acquire("b", func() (*os.File, error) { return nil, fmt.Errorf("opened again") })
	if err != nil {
		t.Fatal(err)
	}
	c.Drop("b")
	again.Release()
	if _, err := b.File().Stat(); err != nil {
		t.Fatalf("b was closed by Drop under its user: %v", err)
	}
	file = b.File()
	b.Release()
	if _, err := file.Stat(); err == nil || c.Len() != 0 {
		t.Fatalf("b stays open, %d in the cache", c.Len())
	}
}

func TestConcurrentUse(t *testing.T) {
	dir := t.TempDir()
	c := fdcache.New[int](4)
	defer c.Close()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 500 {
				key := (i*7 + w) % 9
				h, err := c.Acquire(key, func() (*os.File, error) {
					return os.OpenFile(filepath.Join(dir, fmt.Sprint(key)), os.O_CREATE|os.O_RDWR, 0o600)
				})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := h.File().Stat(); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					c.Drop(key)
				}
				h.Release()
			}
		})
	}
	wg.Wait()
	if c.Len() > 4 {
		t.Fatalf("%d files open, want at most 4", c.Len())
	}
}

// TestRemovedFilesAreClosed removes one of two files, then the other while it is in use.
func TestRemovedFilesAreClosed(t *testing.T) {
	dir := t.TempDir()
	c := fdcache.New[string](8)
	handles := make(map[string]*fdcache.Handle[string])
	for _, name := range []string{"a", "b"} {
		h, err := c.Acquire(name, func() (*os.File, error) { return os.Create(filepath.Join(dir, name)) })
		if err != nil {
			t.Fatal(err)
		}
		handles[name] = h
	}
	handles["a"].Release()
	for n, name := range []string{"a", "b"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		c.DropRemoved()
		if got := c.Len(); got != 1-n {
			t.Errorf("%d files are kept when %s was removed, want %d", got, name, 1-n)
		}
	}
	if _, err := handles["a"].File().Stat(); err == nil {
		t.Error("a file that nobody uses is still open")
	}
	if _, err := handles["b"].File().Stat(); err != nil {
		t.Errorf("a file in use: %v", err)
	}
	handles["b"].Release()
	if _, err := handles["b"].File().Stat(); err == nil {
		t.Error("it is still open after its last use")
	}
}
