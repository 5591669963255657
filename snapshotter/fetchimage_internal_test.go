//go:build linux

package snapshotter

import (
	"iter"
	"slices"
	"testing"

	"github.com/hinshun/ipcs/ipfs"
)

// TestRotated begins at each of some files, and yields each once.
func TestRotated(t *testing.T) {
	var all iter.Seq[ipfs.File] = func(yield func(ipfs.File) bool) {
		for i := range 5 {
			if !yield(ipfs.File{Size: int64(i)}) {
				return
			}
		}
	}
	for n := range 5 {
		var got []int64
		for f := range rotated(all, n) {
			got = append(got, f.Size)
		}
		want := slices.Concat([]int64{0, 1, 2, 3, 4}[n:], []int64{0, 1, 2, 3, 4}[:n])
		if !slices.Equal(got, want) {
			t.Errorf("from %d on: %v, want %v", n, got, want)
		}
		for k := range 5 { // whoever stops early is given nothing more
			for range rotated(all, n) {
				if k--; k < 0 {
					break
				}
			}
		}
	}
}
