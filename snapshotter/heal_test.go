//go:build linux

package snapshotter_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/fetch"
	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs"
)

// nothingComes is a fetcher whose peers are gone.
type nothingComes struct{}

func (nothingComes) Prefetch(ctx context.Context, _ iter.Seq[ipfs.File], _ fetch.Priority) error {
	<-ctx.Done()
	return ctx.Err()
}

func (n nothingComes) PrefetchParts(ctx context.Context, _ iter.Seq[fetch.Part], p fetch.Priority) error {
	return n.Prefetch(ctx, nil, p)
}

func (nothingComes) Has(ipfs.File) bool                 { return false }
func (nothingComes) LeavesRead(ipfs.File) ([]int, bool) { return nil, false }

// TestHeal lets the lazy file system die under a container: what was opened on it fails, and can
// be read again when the next process has fetched all of it, but for what is still open.
func TestHeal(t *testing.T) {
	l, publisher, _ := newLazyLab(t)
	large := strings.Repeat("0123456789abcdef", 3<<16)
	contents := map[string]string{"read": large, "unread": "unread", "open": large + "x"}
	var entries []entry
	for name, content := range contents {
		entries = append(entries, file(name, content, 0o644))
	}
	ipcs, _ := l.buildAt(publisher, "i", [][]entry{entries})
	_, path := l.active(l.Snapshotter, ipcs.parent)
	inside, _ := hosttest.Inside(t, path)
	begin := func(name string) *os.File {
		f, err := os.Open(filepath.Join(inside, name))
		if err == nil {
			_, err = f.Read(make([]byte, 100))
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	if err := begin("read").Close(); err != nil {
		t.Fatal(err)
	}
	open := begin("open")
	defer open.Close()
	if err := errors.Join(unix.Unmount(filepath.Join(l.config.State, "lazy"), unix.MNT_FORCE|unix.MNT_DETACH), l.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(filepath.Join(inside, "unread")); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("reading what lay on the dead file system: %v", err)
	}
	fetcher := l.config.Prefetch
	l.config.Prefetch = nothingComes{}
	l.start()
	if n := l.Broken(); n != 1 {
		t.Errorf("%d containers are broken", n)
	}
	l.active(l.Snapshotter, ipcs.parent) // lies on what is alive
	for range 2 {
		l.restart()
		if n := l.Broken(); n != 1 {
			t.Errorf("%d containers are broken for a process that follows one that had begun to heal", n)
		}
	}
	l.config.Prefetch = fetcher
	l.restart()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for l.Broken() > 0 {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("files that were lost do not come")
		}
	}
	want := func(name string) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(inside, name)); string(b) != contents[name] || err != nil {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	want("read")
	want("unread")
	if _, err := open.ReadAt(make([]byte, 10), 2<<20); !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("what is open: %v; README says that it cannot be read", err)
	}
	l.restart()
	if n := l.Broken(); n != 0 {
		t.Errorf("%d containers are broken for a process that took over what works", n)
	}
}
