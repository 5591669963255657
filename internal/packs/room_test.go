package packs_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hinshun/ipcs/internal/packs"
)

// filled fills a directory with n forms, in files of two.
func filled(t *testing.T, dir string, n, size int) {
	t.Helper()
	p := opened(t, dir)
	p.SetPackSize(int64(size) + 100)
	p.Start(fixed(math.MaxInt64))
	keep(t, p, n, size)
}

// TestRoomThatIsNotKnown keeps what is there, and adds nothing, until the room is known.
func TestRoomThatIsNotKnown(t *testing.T) {
	const n, size = 10, 1000
	dir := t.TempDir()
	filled(t, dir, n, size)
	var known atomic.Bool
	p := opened(t, dir)
	defer p.Close()
	p.Start(func() (int64, bool) { // as while a store counts
		if known.Load() {
			return math.MaxInt64, true
		}
		return 0, false
	})
	<-p.Scanned()
	more, frame := name(t, n, size)
	p.Keep(more, frame, 2*size)
	await(t, "what is kept is looked at", written(p))
	if have := count(t, p, n+1, size); have != n {
		t.Errorf("%d forms are there, want the %d that were", have, n)
	}
	known.Store(true)
	p.Keep(more, frame, 2*size)
	await(t, "what is kept is written", func() bool { return has(p, more) })
}

// TestRoomThatShrinks takes room away from what is there, with nothing to be kept.
func TestRoomThatShrinks(t *testing.T) {
	const n, size = 20, 1000
	dir := t.TempDir()
	filled(t, dir, n, size)
	var room atomic.Int64
	room.Store(math.MaxInt64)
	p := opened(t, dir)
	defer p.Close()
	p.SetInterval(time.Millisecond)
	p.Start(func() (int64, bool) { return room.Load(), true })
	<-p.Scanned()
	all := p.Bytes()
	if have := count(t, p, n, size); have != n {
		t.Fatalf("%d forms are there", have)
	}
	room.Store(all / 2)
	await(t, "half is dropped", func() bool { return p.Bytes() <= all/2 })
	if first, _ := name(t, 0, size); has(p, first) {
		t.Error("the oldest is there still")
	}
	if last, _ := name(t, n-1, size); !has(p, last) {
		t.Error("the newest is gone")
	}
}

// TestRoomAtTheStart trims what is there before it is read.
func TestRoomAtTheStart(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 10, 1000)
	p := opened(t, dir)
	defer p.Close()
	if p.Bytes() != 10*1044 {
		t.Errorf("%d bytes before anything is read", p.Bytes())
	}
	p.Drop(1)
	p.Start(fixed(5000))
	<-p.Scanned()
	if have := count(t, p, 10, 1000); have != 4 || p.Bytes() != 4*1044 {
		t.Errorf("%d forms, %d bytes", have, p.Bytes())
	}
}

// TestDropWhileFilesAreRead finds nothing of what was dropped, and counts what is left.
func TestDropWhileFilesAreRead(t *testing.T) {
	const n, size = 200, 100
	dir := t.TempDir()
	filled(t, dir, n, size)
	p := opened(t, dir)
	defer p.Close()
	p.Start(fixed(math.MaxInt64))
	for range 30 {
		p.Drop(1)
	}
	<-p.Scanned()
	var bytes int64
	for _, name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bytes += info.Size()
	}
	if have := count(t, p, n, size); have != n-60 || p.Bytes() != bytes || bytes != int64(have)*(size+44) {
		t.Errorf("%d forms, %d bytes; the files have %d", have, p.Bytes(), bytes)
	}
}

// TestFilesThatCannotBeRead are done without: one that cannot be opened, and one whose reading
// fails.
func TestFilesThatCannotBeRead(t *testing.T) {
	const n, size = 4, 1000
	dir := t.TempDir()
	filled(t, dir, n, size)
	for name, put := range map[string]func(path string) error{
		"7.pack": func(path string) error { return os.Mkdir(path, 0o700) },
		"8.pack": func(path string) error { return os.Symlink("/proc/self/mem", path) }, // EIO at its begin
	} {
		if err := put(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "9.pack", "full"), 0o700); err != nil { // nor be removed
		t.Fatal(err)
	}
	p := opened(t, dir)
	p.SetPackSize(1) // so that new files are made beside the one that is left
	p.Start(fixed(math.MaxInt64))
	<-p.Scanned()
	if have := count(t, p, n, size); have != n {
		t.Errorf("%d forms are there", have)
	}
	keep(t, p, n+2, size)
	p = open(t, dir, math.MaxInt64)
	defer p.Close()
	if have := count(t, p, n+2, size); have != n+2 {
		t.Errorf("%d forms are there, beside files that are not", have)
	}
	if left := files(t, dir); slices.Contains(left, "7.pack") || slices.Contains(left, "8.pack") || !slices.Contains(left, "9.pack") {
		t.Errorf("there are %q", left)
	}
}

// TestRemove removes what was kept, and nothing else.
func TestRemove(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir, 10, 1000)
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := packs.Remove(dir); err != nil {
		t.Error(err)
	}
	if left := files(t, dir); !slices.Equal(left, []string{"mine"}) {
		t.Errorf("there are %q", left)
	}
	if err := packs.Remove(filepath.Join(dir, "none")); err != nil {
		t.Errorf("where there is nothing: %v", err)
	}
}

// TestDirectoryThatIsNone is an error: whoever opens it does without.
func TestDirectoryThatIsNone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := packs.Open(path, nil); err == nil {
		t.Error("a file is opened as a directory")
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
