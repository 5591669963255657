//go:build linux

package unpack_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/mount"

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
	l.apply(l.convert(makeTar(b, files...)), bind(lower))
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
