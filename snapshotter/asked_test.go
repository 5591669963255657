//go:build linux

package snapshotter_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/ipfs/go-cid"
	"github.com/opencontainers/go-digest"

	"github.com/hinshun/ipcs/layer"
	"github.com/hinshun/ipcs/snapshotter"
)

// asking is a RecordProfile that is under way.
type asking struct {
	l       *lab
	enough  chan struct{}
	waiting chan struct{}
	begun   chan string // keys
	done    chan *snapshotter.Recorded
	failed  chan error
}

// ask asks for a recording and returns when it waits for a container.
func (l *lab) ask(ctx context.Context, image string, window time.Duration) *asking {
	l.t.Helper()
	a := &asking{
		l: l, enough: make(chan struct{}), waiting: make(chan struct{}), begun: make(chan string, 10),
		done: make(chan *snapshotter.Recorded, 1), failed: make(chan error, 1),
	}
	order := snapshotter.RecordOrder{
		Image: image, Window: window, Enough: a.enough, Waiting: func() { close(a.waiting) },
		Begun: func(key string, _ digest.Digest) { a.begun <- key },
	}
	go func() {
		r, err := l.RecordProfile(ctx, order)
		a.done <- r
		a.failed <- err
	}()
	<-a.waiting
	return a
}

// result returns the files that were recorded, by content.
func (a *asking) result(end snapshotter.RecordEnd) []cid.Cid {
	a.l.t.Helper()
	r, err := <-a.done, <-a.failed
	if err != nil {
		a.l.t.Fatal(err)
	}
	files, err := layer.DecodeProfile(r.Profile)
	if err != nil || r.End != end || r.Files != len(files) {
		a.l.t.Fatalf("%d files, of which %d can be read, ended by %q: %v", r.Files, len(files), r.End, err)
	}
	return files
}

// TestRecordAsked records containers of an image that has a profile, until each of the ends. What is
// recorded is given to who asked, and kept nowhere.
func TestRecordAsked(t *testing.T) {
	l := newLab(t)
	c := l.abc()
	own, err := layer.EncodeProfile([]cid.Cid{cidOf(t, "is c")})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.PutProfile(c.id, own); err != nil {
		t.Fatal(err)
	}
	for _, end := range []snapshotter.RecordEnd{snapshotter.EndEnough, snapshotter.EndGone, snapshotter.EndWindow} {
		window := time.Duration(0)
		if end == snapshotter.EndWindow {
			window = time.Second
		}
		a := l.ask(l.ctx, c.id.Encoded()[:12], window)
		key, path := l.container(c.parent)
		if got := <-a.begun; got != key {
			t.Fatalf("container %s is recorded, not %s", got, key)
		}
		want := []cid.Cid{cidOf(t, "is b"), cidOf(t, "is a")}
		l.readUntil(key, filepath.Join(path, "b"), 1)
		switch end {
		case snapshotter.EndWindow:
			want = want[:1]
		case snapshotter.EndEnough:
			// Nobody has been told of the second yet, maybe, but it was before the end.
			if _, err := os.ReadFile(filepath.Join(path, "a")); err != nil {
				t.Fatal(err)
			}
			close(a.enough)
		case snapshotter.EndGone:
			l.readUntil(key, filepath.Join(path, "a"), 2)
			if err := l.Remove(l.ctx, key); err != nil {
				t.Fatal(err)
			}
		}
		if files := a.result(end); !slices.Equal(files, want) {
			t.Errorf("%s: recorded %v, want %v", end, files, want)
		}
		if _, err := os.ReadFile(filepath.Join(path, "c")); err != nil {
			t.Fatal(err)
		}
	}
	if kept, err := l.Profile(l.ctx, ""); err != nil || !slices.Equal(kept, own) {
		t.Errorf("the profile that was there is now %q, %v", kept, err)
	}
}

// TestRecordAskedFinds finds which containers an order takes: those of its image, also when
// they were made before and are mounted now, and not one that goes before it opens anything.
func TestRecordAskedFinds(t *testing.T) {
	l := newLab(t)
	l.config.ProfileWindow = time.Hour
	l.restart()
	c := l.abc()
	made, path := l.container(c.parent)
	other := l.ask(l.ctx, "0123456789", 0)
	top := l.ask(l.ctx, "", 0)
	idle, _ := l.active(l.Snapshotter, c.parent)
	if got := <-top.begun; got != idle {
		t.Fatalf("container %s is recorded, not %s", got, idle)
	}
	if err := l.Remove(l.ctx, idle); err != nil {
		t.Fatal(err)
	}
	for key := ""; key != made; { // the order may not know yet that the other has gone
		if _, err := l.Mounts(l.ctx, made); err != nil {
			t.Fatal(err)
		}
		select {
		case key = <-top.begun:
		case <-time.After(10 * time.Millisecond):
		}
	}
	l.readUntil(made, filepath.Join(path, "a"), 1)
	close(top.enough)
	if files := top.result(snapshotter.EndEnough); !slices.Equal(files, []cid.Cid{cidOf(t, "is a")}) {
		t.Errorf("recorded %v", files)
	}
	close(other.enough)
	if r, err := <-other.done, <-other.failed; r != nil || !errdefs.IsFailedPrecondition(err) || len(other.begun) > 0 {
		t.Errorf("without a container: %+v, %v", r, err)
	}
}

// TestRecordAskedEnds finds that an order ends with its caller and with the snapshotter, before
// and after a container was found, and that only so many wait.
func TestRecordAskedEnds(t *testing.T) {
	l := newLab(t)
	c := l.abc()
	ctx, cancel := context.WithCancel(l.ctx)
	early, late := l.ask(ctx, "", 0), l.ask(l.ctx, "", 0)
	cancel()
	if err := <-early.failed; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller went away: %v", err)
	}
	key, path := l.container(c.parent)
	<-late.begun
	l.readUntil(key, filepath.Join(path, "a"), 1)
	var waiting []*asking
	for range snapshotter.MaxOrders - 1 {
		waiting = append(waiting, l.ask(l.ctx, "", 0))
	}
	none := func() {}
	_, err := l.RecordProfile(l.ctx, snapshotter.RecordOrder{Waiting: none})
	if !errdefs.IsResourceExhausted(err) {
		t.Errorf("one too many: %v", err)
	}
	l.restart()
	for _, a := range append(waiting, late) {
		if r, err := <-a.done, <-a.failed; r != nil || err == nil {
			t.Errorf("the snapshotter was closed: %+v, %v", r, err)
		}
	}
}
