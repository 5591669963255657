//go:build linux

package snapshotter

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/layer"
)

// manyFiles is an index of n files, 20 a directory.
func manyFiles(n int) *layer.Index {
	x := &layer.Index{Entries: []layer.Entry{{Mode: os.ModeDir | 0o755, Parent: -1, Link: -1}}}
	dir := int32(0)
	for i := range n {
		if i%20 == 0 {
			dir = int32(len(x.Entries))
			x.Entries = append(x.Entries, layer.Entry{Name: fmt.Sprintf("directory-%08d", i), Mode: os.ModeDir | 0o755, Link: -1})
		}
		sum := sha256.Sum256(fmt.Append(nil, i))
		x.Entries = append(x.Entries, layer.Entry{Name: fmt.Sprintf("some-file-%08d.py", i), Mode: 0o644, Parent: dir, Link: -1, Size: int64(i + 1), Digest: string(sum[:])})
	}
	return x
}

// BenchmarkImage merges one layer and writes its image.
func BenchmarkImage(b *testing.B) {
	x := manyFiles(60_000)
	for b.Loop() {
		merged, err := layer.Merge([]*layer.Index{x}, true)
		if err != nil {
			b.Fatal(err)
		}
		tree, err := newOverlayTree(merged, trusted)
		if err != nil {
			b.Fatal(err)
		}
		if err := erofs.Write(io.Discard, tree, erofs.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFileTable(b *testing.B) {
	x := manyFiles(60_000)
	for b.Loop() {
		newFileTable(x)
	}
}
