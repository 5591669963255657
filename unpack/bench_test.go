//go:build linux

package unpack_test

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/archive"

	"github.com/hinshun/ipcs/layer/layertest"
	"github.com/hinshun/ipcs/mediatype"
)

// BenchmarkCompare makes a layer of one new file on 50,000 others: from the upper directory,
// and from both trees, as for mounts that do not tell of one.
func BenchmarkCompare(b *testing.B) {
	l := newLab(b)
	var files []file
	for i := range 50_000 {
		files = append(files, text(fmt.Sprintf("d/%d/%d", i/100, i), "x"))
	}
	lower, upper := l.folder("lower"), l.folder("upper")
	l.apply(l.convert(layertest.Tar(b, files...)), bind(lower))
	l.must(os.MkdirAll(filepath.Join(upper, "d/77"), 0o755))
	l.must(os.WriteFile(filepath.Join(upper, "d/77/new"), []byte("new"), 0o600))
	for _, c := range []struct {
		name   string
		mounts []mount.Mount
	}{{"upper", l.overlay(upper, lower)}, {"trees", indexed(l.overlay(upper, lower))}} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				if _, err := l.Compare(b.Context(), bind(lower), c.mounts, diff.WithMediaType(mediatype.Layer)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkApply applies 12,000 files of 8 KiB and one of 64 MiB to a tmpfs, from a node in
// memory and, as containerd does, from their tar in memory, in turns.
func BenchmarkApply(b *testing.B) {
	l := newLab(b)
	random := rand.New(rand.NewSource(1))
	body := func(n int) string {
		data := make([]byte, n)
		random.Read(data)
		return string(data)
	}
	files := []file{text("large", body(64<<20))}
	for i := range 12_000 {
		files = append(files, text(fmt.Sprintf("d/%d/%d", i/100, i), body(8<<10)))
	}
	tarball := layertest.Tar(b, files...)
	desc := l.convert(tarball)
	var ours, theirs time.Duration
	for b.Loop() {
		theirs += l.timed(func(dir string) error {
			_, err := archive.Apply(b.Context(), dir, bytes.NewReader(tarball))
			return err
		})
		ours += l.timed(func(dir string) error {
			_, err := l.Apply(b.Context(), desc, bind(dir))
			return err
		})
	}
	b.ReportMetric(ours.Seconds()/theirs.Seconds(), "ipcs/containerd")
	b.ReportMetric(theirs.Seconds()/float64(b.N), "containerd-s")
}

// timed says how long it takes to fill a directory, and removes that.
func (l *lab) timed(fill func(dir string) error) time.Duration {
	l.t.Helper()
	dir := l.folder("filled")
	start := time.Now()
	l.must(fill(dir))
	took := time.Since(start)
	l.must(os.RemoveAll(dir))
	return took
}
