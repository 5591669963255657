//go:build linux

package opens_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
	"github.com/hinshun/ipcs/internal/opens"
)

// observer puts overlays into groups, and tells what it hears.
type observer struct {
	groups        map[string]string // by upper directories
	opened, ended chan string
	lost          chan error
}

func newObserver() *observer {
	return &observer{make(map[string]string), make(chan string, 100_000), make(chan string, 10), make(chan error, 10)}
}

func (o *observer) Group(upper string) string { return o.groups[upper] }

func (o *observer) Begin(_ context.Context, group string) (func(string), func()) {
	return func(path string) { o.opened <- group + ":" + path }, func() { o.ended <- group }
}

func (o *observer) Lost(_ string, err error) { o.lost <- err }

// track runs Track until the test ends or stop is called.
func (o *observer) track(t testing.TB, interval time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- opens.Track(ctx, interval, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// until opens a file again and again until it is told.
func (o *observer) until(t testing.TB, path, want string) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		read(t, path)
		select {
		case got := <-o.opened:
			if got == want {
				return
			}
		case err := <-o.lost:
			t.Fatal(err)
		case <-tick.C:
		}
	}
}

func read(t testing.TB, path string) {
	t.Helper()
	if _, err := os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
}

// TestTrack has two overlays in one group, one in another, and one in none. Each file is
// told once in an interval.
func TestTrack(t *testing.T) {
	o := newObserver()
	one, two, other, none := newOverlay(t), newOverlay(t), newOverlay(t), newOverlay(t)
	o.groups[one.upper], o.groups[two.upper], o.groups[other.upper] = "g", "g", "h"
	first, third := one.mount(), other.mount()
	dir, _ := hosttest.Inside(t, first)
	ignored, _ := hosttest.Inside(t, none.mount())
	stop := o.track(t, time.Hour)
	o.until(t, filepath.Join(dir, "a"), "g:a")
	second, _ := hosttest.Inside(t, two.mount())
	o.until(t, filepath.Join(second, "a"), "g:a")
	in, _ := hosttest.Inside(t, third)
	o.until(t, filepath.Join(in, "d/b"), "h:d/b")
	for range 100 {
		read(t, filepath.Join(dir, "a"))
		read(t, filepath.Join(ignored, "a"))
	}
	read(t, filepath.Join(dir, "d/b"))
	for got := range o.opened {
		if got == "g:d/b" {
			break
		}
		t.Errorf("told of %s again", got)
	}
	for _, at := range []string{first, third} {
		if err := unix.Unmount(at, 0); err != nil {
			t.Fatal(err)
		}
	}
	if group := <-o.ended; group != "h" {
		t.Errorf("group %s ended", group)
	}
	stop()
	if group := <-o.ended; group != "g" {
		t.Errorf("group %s ended", group)
	}
}

// TestTrackAgain tells of a file in each interval.
func TestTrackAgain(t *testing.T) {
	o := newObserver()
	one := newOverlay(t)
	o.groups[one.upper] = "g"
	dir, _ := hosttest.Inside(t, one.mount())
	o.track(t, 50*time.Millisecond)
	for range 3 {
		o.until(t, filepath.Join(dir, "a"), "g:a")
	}
}

// BenchmarkOpens opens 12,000 files of an overlay: unwatched, when each is told, and when
// all are ignored for the rest of the interval. cpu-ms is what this process used in all, the
// watcher included.
func BenchmarkOpens(b *testing.B) {
	const files = 12_000
	v := newOverlay(b)
	for i := range files {
		if err := os.WriteFile(filepath.Join(v.lower, fmt.Sprintf("f%05d", i)), []byte("x"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	dir, _ := hosttest.Inside(b, v.mount())
	names := make([]string, files)
	for i := range names {
		names[i] = fmt.Sprintf("%s/f%05d", dir, i)
	}
	pass := func() {
		for _, name := range names {
			fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			_ = unix.Close(fd)
		}
	}
	pass()
	for _, c := range []struct {
		name     string
		watched  bool
		interval time.Duration
	}{{"unwatched", false, 0}, {"told", true, time.Nanosecond}, {"ignored", true, time.Hour}} {
		b.Run(c.name, func(b *testing.B) {
			o := newObserver()
			if c.watched {
				o.groups[v.upper] = "g"
				stop := o.track(b, max(c.interval, time.Millisecond))
				defer stop()
				o.until(b, filepath.Join(dir, "a"), "g:a")
				pass()
			}
			before := cpu(b)
			for b.Loop() {
				pass()
				for len(o.opened) > 0 {
					<-o.opened
				}
			}
			b.ReportMetric(float64((cpu(b)-before).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
