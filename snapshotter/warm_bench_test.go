//go:build linux

package snapshotter_test

import (
	"fmt"
	"io/fs"
	"math/rand"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"golang.org/x/sys/unix"

	"github.com/hinshun/ipcs/internal/hosttest"
)

// A warmWay is a way to mount the files that BenchmarkWarm reads.
type warmWay struct {
	name   string
	mounts func() []mount.Mount
	first  []float64 // by round: seconds of processor time of the first pass
	again  []float64
}

// BenchmarkWarm reads 12,000 small files twice in a new mount, as containerd's overlay
// snapshotter mounts them and in several ways as ipcs could, all local and in the page cache.
// The ways take turns; it reports the median of the ratios to overlayfs within the rounds, of
// processor time, which other work on the computer disturbs least.
func BenchmarkWarm(b *testing.B) {
	hosttest.Root(b)
	l := newLab(b)
	ways := warmWays(b, l)
	for round := 0; b.Loop(); round++ {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			root := b.TempDir()
			if err := mount.All(w.mounts(), root); err != nil {
				b.Fatalf("%s: %v", w.name, err)
			}
			w.first = append(w.first, readFiles(b, root))
			w.again = append(w.again, readFiles(b, root))
			if err := unix.Unmount(root, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, w := range ways {
		b.ReportMetric(medianRatio(w.first, ways[0].first), w.name+"-first")
		b.ReportMetric(medianRatio(w.again, ways[0].again), w.name+"-again")
	}
	b.ReportMetric(slices.Min(ways[0].first)*1e6/warmFiles, "overlayfs-us/file-first")
	b.ReportMetric(slices.Min(ways[0].again)*1e6/warmFiles, "overlayfs-us/file-again")
}

func medianRatio(a, base []float64) float64 {
	var ratios []float64
	for i := range a {
		ratios = append(ratios, a[i]/base[i])
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

const (
	warmFiles  = 12_000
	warmLayers = 3
)

func warmWays(b *testing.B, l *lab) []*warmWay {
	b.Helper()
	r := rand.New(rand.NewSource(1))
	var layers [][]entry
	for n := range warmLayers {
		var entries []entry
		for i := n; i < warmFiles; i += warmLayers {
			body := make([]byte, 1<<10+r.Intn(15<<10))
			r.Read(body)
			entries = append(entries, file(fmt.Sprintf("small/%03d/file-%05d", i%100, i), string(body), 0o644))
		}
		layers = append(layers, entries)
	}
	ipcs, plain := l.build("iii", layers)
	base, err := l.overlay.Prepare(l.ctx, l.key("plain"), plain.parent)
	if err != nil {
		b.Fatal(err)
	}
	own, err := l.Prepare(l.ctx, l.key("container"), ipcs.parent)
	if err != nil {
		b.Fatal(err)
	}
	with := func(change func(options []string) []string) func() []mount.Mount {
		return func() []mount.Mount {
			m := own[0]
			m.Options = change(slices.Clone(m.Options))
			return []mount.Mount{m}
		}
	}
	without := func(drop string) func([]string) []string {
		return func(o []string) []string {
			return slices.DeleteFunc(o, func(s string) bool { return strings.HasPrefix(s, drop) })
		}
	}
	add := func(more ...string) func([]string) []string {
		return func(o []string) []string { return append(o, more...) }
	}
	return []*warmWay{
		{name: "overlayfs", mounts: func() []mount.Mount { return base }},
		{name: "ipcs", mounts: func() []mount.Mount { return own }},
		{name: "no-xino", mounts: with(without("xino"))},
		{name: "noatime", mounts: with(add("noatime"))},
		{name: "uuid-off", mounts: with(add("uuid=off"))},
		{name: "metacopy", mounts: with(add("metacopy=on", "redirect_dir=on"))},
	}
}

// readFiles reads every file below root, and returns the processor time that it took.
func readFiles(b *testing.B, root string) float64 {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, 1<<20)
	start := threadTime(b)
	n := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		n++
		fd, err := unix.Open(path, unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		for got := 1; got > 0 && err == nil; {
			got, err = unix.Read(fd, buf)
		}
		if cerr := unix.Close(fd); err == nil {
			err = cerr
		}
		return err
	})
	if err != nil || n != warmFiles {
		b.Fatal(n, err)
	}
	return (threadTime(b) - start).Seconds()
}

func threadTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkContainer makes what a container runs on, mounts it and removes it, in turns with
// containerd's overlay snapshotter, both in this process: it reports the median of the ratios
// within the rounds, of time and of processor time.
func BenchmarkContainer(b *testing.B) {
	hosttest.Root(b)
	l := newLab(b)
	var layers [][]entry
	for i := range 5 {
		layers = append(layers, []entry{file(fmt.Sprintf("dir-%d/file", i), "content", 0o644)})
	}
	ipcs, plain := l.build("iiiii", layers)
	sides := []*struct {
		snapshots.Snapshotter
		parent    string
		took, cpu []float64
	}{{Snapshotter: l.overlay, parent: plain.parent}, {Snapshotter: l.Snapshotter, parent: ipcs.parent}}
	root := b.TempDir()
	for round := 0; b.Loop(); round++ {
		for i := range sides {
			s := sides[(i+round)%len(sides)]
			start, used := time.Now(), processorTime(b)
			key := l.key("container")
			if _, err := s.Prepare(l.ctx, key, s.parent); err != nil {
				b.Fatal(err)
			}
			mounts, err := s.Mounts(l.ctx, key)
			if err == nil {
				err = mount.All(mounts, root)
			}
			if err == nil {
				err = unix.Unmount(root, 0)
			}
			if err == nil {
				err = s.Remove(l.ctx, key)
			}
			if err != nil {
				b.Fatal(err)
			}
			s.took, s.cpu = append(s.took, time.Since(start).Seconds()), append(s.cpu, (processorTime(b)-used).Seconds())
		}
	}
	b.ReportMetric(medianRatio(sides[1].took, sides[0].took), "time-ratio")
	b.ReportMetric(medianRatio(sides[1].cpu, sides[0].cpu), "cpu-ratio")
	b.ReportMetric(slices.Min(sides[0].took)*1e3, "overlayfs-ms")
	b.ReportMetric(slices.Min(sides[1].took)*1e3, "ipcs-ms")
}
