//go:build linux

package snapshotter

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/ipfs/go-cid"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/ipfs"
)

// TestUsesWaitForNoNames takes events although it is not known yet what their files are, and
// tells of them when it is.
func TestUsesWaitForNoNames(t *testing.T) {
	hosttest.Root(t)
	dir := t.TempDir()
	want := ipfs.RawCid(string(make([]byte, 32)))
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(path, redirectXattr, []byte("/xy/"+want.String()), 0); err != nil {
		t.Fatal(err)
	}
	mounted := make(chan struct{})
	told := make(chan cid.Cid, 10)
	u := newUses(func(c cid.Cid) { told <- c }, func(context.Context, []link) []string {
		<-mounted
		return []string{dir}
	}, slog.New(slog.DiscardHandler))
	opened, end := u.Begin(t.Context(), "chain")
	opened("a")
	opened("not of the image")
	if len(told) > 0 {
		t.Errorf("told of %v", <-told)
	}
	close(mounted)
	if got := <-told; got != want { // though nothing is opened any more
		t.Errorf("told of %s, want %s", got, want)
	}
	end()
	if len(told) > 0 {
		t.Errorf("told of %s too", <-told)
	}
}
