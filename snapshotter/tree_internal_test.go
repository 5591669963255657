//go:build linux

package snapshotter

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"

	"github.com/hinshun/ipcs/internal/erofs"
	"github.com/hinshun/ipcs/internal/objects"
	"github.com/hinshun/ipcs/ipfs"
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

// encoded returns an index as it is written.
func encoded(t testing.TB, x *layer.Index) *layer.Encoded {
	t.Helper()
	b, err := layer.EncodeIndex(x)
	if err != nil {
		t.Fatal(err)
	}
	e, err := layer.NewEncoded(b)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tableOf(t testing.TB, x *layer.Index) *fileTable {
	t.Helper()
	table, err := newFileTable(encoded(t, x))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// BenchmarkImage merges one layer and writes its image.
func BenchmarkImage(b *testing.B) {
	x := encoded(b, manyFiles(60_000))
	b.ReportAllocs()
	for b.Loop() {
		merged, err := layer.Merge([]*layer.Encoded{x}, true)
		if err != nil {
			b.Fatal(err)
		}
		if err := erofs.Write(io.Discard, &overlayTree{merged, DataOnly, attributesOf(nil)}, erofs.Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFileTable(b *testing.B) {
	x := encoded(b, manyFiles(60_000))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newFileTable(x); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRedirect: an object is where the store puts it.
func TestRedirect(t *testing.T) {
	for _, file := range []ipfs.File{{Cid: ipfs.RawCid(strings.Repeat("\xf1", 32))}, {Cid: cid.NewCidV1(cid.DagProtobuf, ipfs.RawCid(strings.Repeat("a", 32)).Hash())}} {
		want := objects.Path(file.Cid)
		if got := redirect(DataHidden, file.Cid); got != "/"+want {
			t.Errorf("%s, want /%s", got, want)
		}
		if got := redirect(DataOnly, file.Cid); objects.Hidden+got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
