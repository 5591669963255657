//go:build linux

package snapshotter_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/objects/objectstest"
	"github.com/hinshun/ipcs/ipfs"
	"github.com/hinshun/ipcs/layer"
)

// container mounts a new snapshot until the test ends, and returns a path of it as a
// container has it.
func (l *lab) container(parent string) (key, path string) {
	l.t.Helper()
	key, at := l.active(l.Snapshotter, parent)
	path, _ = hosttest.Inside(l.t, at)
	return key, path
}

// readUntil reads a file of a container until it is recorded that n files were opened: it may
// take a moment until the kernel tells of a mount.
func (l *lab) readUntil(key, path string, n int) {
	l.t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.Recorded(key) < n {
		if _, err := os.ReadFile(path); err != nil {
			l.t.Fatal(err)
		}
		<-tick.C
	}
}

// TestRecord finds that what a container opens is recorded, in order, though all is on disk
// and no file system of ours sees it.
func TestRecord(t *testing.T) {
	l := newLab(t)
	l.config.ProfileWindow = time.Hour
	l.restart()
	c := l.abc()
	key, path := l.container(c.parent)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	read := func(name string, recorded int) { l.readUntil(key, filepath.Join(path, name), recorded) }
	read("b", 1)
	if err := os.WriteFile(filepath.Join(path, "own"), []byte("the container's own"), 0o600); err != nil {
		t.Fatal(err)
	}
	read("a", 2)
	if err := l.Remove(l.ctx, key); err != nil {
		t.Fatal(err)
	}
	files := l.waitProfile(tick)
	if want := []cid.Cid{cidOf(t, "is b"), cidOf(t, "is a")}; !slices.Equal(files, want) {
		t.Errorf("recorded %v, want %v", files, want)
	}
	// That container ended early: one that opens more makes a better profile, also for the
	// next daemon.
	l.restart()
	key, path = l.container(c.parent)
	read("c", 1)
	read("b", 2)
	read("a", 3)
	if err := l.Remove(l.ctx, key); err != nil {
		t.Fatal(err)
	}
	for len(files) != 3 {
		<-tick.C
		files = l.waitProfile(tick)
	}
	if files[0] != cidOf(t, "is c") {
		t.Errorf("recorded %v", files)
	}
}

// TestRecordWindow ends a recording when its time is up.
func TestRecordWindow(t *testing.T) {
	l := newLab(t)
	l.config.ProfileWindow = 100 * time.Millisecond
	l.restart()
	c := l.abc()
	_, path := l.container(c.parent)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.ReadFile(filepath.Join(path, "b")); err != nil {
			t.Fatal(err)
		}
		if all, err := l.Profiles(l.ctx); err != nil || len(all) == 1 && all[0].Chain == c.id {
			break
		}
		<-tick.C
	}
	// There is one, and so no second container is recorded.
	key, path := l.container(c.parent)
	if _, err := os.ReadFile(filepath.Join(path, "a")); err != nil {
		t.Fatal(err)
	}
	if n := l.Recorded(key); n > 0 {
		t.Errorf("%d files were recorded again", n)
	}
}

// TestRecordTheOneThatStarts records a container that is made while another was made and not
// started.
func TestRecordTheOneThatStarts(t *testing.T) {
	l := newLab(t)
	l.config.ProfileWindow = time.Hour
	l.restart()
	c := l.abc()
	l.container(c.parent)
	key, path := l.container(c.parent)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.Recorded(key) == 0 {
		if _, err := os.ReadFile(filepath.Join(path, "a")); err != nil {
			t.Fatal(err)
		}
		<-tick.C
	}
	other, _ := l.container(c.parent)
	if _, err := os.ReadFile(filepath.Join(path, "b")); err != nil {
		t.Fatal(err)
	}
	for l.Recorded(key) < 2 {
		<-tick.C
	}
	if n := l.Recorded(other); n > 0 {
		t.Errorf("of another container, %d files were recorded", n)
	}
}

// TestRecordAndImport imports a profile while one is recorded: it stays.
func TestRecordAndImport(t *testing.T) {
	l := newLab(t)
	l.config.ProfileWindow = time.Hour
	l.restart()
	c := l.abc()
	key, path := l.container(c.parent)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.Recorded(key) < 2 {
		for _, name := range []string{"a", "b"} {
			if _, err := os.ReadFile(filepath.Join(path, name)); err != nil {
				t.Fatal(err)
			}
		}
		<-tick.C
	}
	imported := []cid.Cid{cidOf(t, "is c")}
	b, err := layer.EncodeProfile(imported)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.PutProfile(c.id, b); err != nil {
		t.Fatal(err)
	}
	for l.Recorded(key) > 0 {
		<-tick.C
	}
	if err := l.Remove(l.ctx, key); err != nil {
		t.Fatal(err)
	}
	l.restart()
	if files := l.waitProfile(tick); !slices.Equal(files, imported) {
		t.Errorf("the profile is now %v", files)
	}
}

// TestRecordLeaves reads parts of a large file that is at a peer: the profile names them, and who
// has it gets no more of the file.
func TestRecordLeaves(t *testing.T) {
	l, publisher, _ := newLazyLab(t)
	l.config.ProfileWindow = time.Hour
	l.restart()
	content := objectstest.Random(1, 20*ipfs.LeafSize)
	image, _ := l.buildAt(publisher, "i", [][]entry{{file("large", string(content), 0o644), file("small", "is small", 0o644)}})
	key, path := l.container(image.parent)
	l.readUntil(key, filepath.Join(path, "small"), 1)
	f, err := os.Open(filepath.Join(path, "large"))
	if err != nil {
		t.Fatal(err)
	}
	want := []cid.Cid{cidOf(t, "is small")}
	for _, leaf := range []int{15, 4} {
		at := leaf*ipfs.LeafSize + ipfs.LeafSize/3
		got := make([]byte, 10)
		if _, err := f.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, content[at:at+10]) {
			t.Fatalf("read %x, %v", got, err)
		}
		want = append(want, cidOf(t, string(content[leaf*ipfs.LeafSize:(leaf+1)*ipfs.LeafSize])))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.Recorded(key) < 3 {
		<-tick.C
	}
	if err := l.Remove(l.ctx, key); err != nil {
		t.Fatal(err)
	}
	if files := l.waitProfile(tick); !slices.Equal(files, want) {
		t.Errorf("recorded %v, want %v", files, want)
	}
	profile, err := l.Profile(l.ctx, "")
	if err != nil {
		t.Fatal(err)
	}

	// Another machine, whose files are all elsewhere.
	l, publisher, _ = newLazyLab(t)
	image, _ = l.buildAt(publisher, "i", [][]entry{{file("large", string(content), 0o644), file("small", "is small", 0o644)}})
	if err := l.PutProfile(image.id, profile); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[cid.Cid]bool{}
	l.node.SetFault(func(_ string, c cid.Cid) error {
		mu.Lock()
		defer mu.Unlock()
		asked[c] = true
		return nil
	})
	wasAsked := func(c cid.Cid) bool {
		mu.Lock()
		defer mu.Unlock()
		return asked[c]
	}
	_, path = l.container(image.parent)
	for _, c := range want {
		for !wasAsked(c) {
			<-tick.C
		}
	}
	if f, err = os.Open(filepath.Join(path, "large")); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, leaf := range []int{4, 15} {
		at := leaf*ipfs.LeafSize + 1000
		got := make([]byte, 10)
		if _, err := f.ReadAt(got, int64(at)); err != nil || !bytes.Equal(got, content[at:at+10]) {
			t.Fatalf("read %x, %v", got, err)
		}
	}
	time.Sleep(50 * time.Millisecond) // what would be read ahead is asked for behind the read
	for leaf := range 20 {
		c := cidOf(t, string(content[leaf*ipfs.LeafSize:(leaf+1)*ipfs.LeafSize]))
		if wasAsked(c) != slices.Contains(want, c) {
			t.Errorf("leaf %d was asked for: %v", leaf, wasAsked(c))
		}
	}
}

// waitProfile waits for a profile and returns its files.
func (l *lab) waitProfile(tick *time.Ticker) []cid.Cid {
	l.t.Helper()
	for {
		b, err := l.Profile(l.ctx, "")
		if err != nil {
			<-tick.C
			continue
		}
		files, err := layer.DecodeProfile(b)
		if err != nil {
			l.t.Fatal(err)
		}
		return files
	}
}
